"""The map of docs/architecture.md: which room may import which, and which rooms stay light."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import herd

ROOT = Path(herd.__file__).parent
ORDER = (
    *("errors", "progress", "files", "config", "stages", "lanes"),
    *(
        "llama",
        "text",
        "kernels",
        "devices",
        "weights",
        "hub",
        "quantize",
        "corpus",
        "train",
        "generate",
        "paddock",
        "evaluate",
    ),
    *("synthesize", "posttrain", "scaling", "serve", "assist"),
    *("recipe", "recipes", "report", "release", "road", "commands", "arguments", "cli", "__main__"),
)
RANK = {room: place for place, room in enumerate(ORDER)}
TORCH_FREE_ROOMS = (
    *("text", "corpus", "paddock", "scaling", "report", "evaluate"),
    *("recipes", "hub", "release", "arguments"),
)
TORCH_FREE = (
    *("errors", "progress", "files", "config", "stages", "lanes", "devices"),
    *("recipe", "generate/protocol", "road/graph", "cli"),
    *("train/parallel/plan", "train/parallel/schedule", "train/parallel/play"),
)
LIGHT = ("torch", "numpy", "scipy", "tokenizers", "rich", "pyarrow", "transformers")


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def module_of(path: Path) -> str:
    return ".".join(("herd", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


def sources() -> list[Path]:
    return sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def imported_rooms(path: Path) -> list[tuple[str, int]]:
    """(room, line) of every import of herd in a file, those inside functions too."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            assert node.level == 0, f"{path}:{node.lineno} imports relatively; say the whole name"
            names = [f"herd.{alias.name}" for alias in node.names] if node.module == "herd" else [node.module or ""]
        found += [(name.split(".")[1], node.lineno) for name in names if name.startswith("herd.")]
    return [(room, line) for room, line in found if room != "__version__"]


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_every_file_stands_in_a_room_of_the_map() -> None:
    assert {room_of(path) for path in sources()} <= set(ORDER)


def test_rooms_import_only_rooms_before_them() -> None:
    against = [
        f"{path.relative_to(ROOT)}:{line} imports {room}"
        for path in sources()
        for room, line in imported_rooms(path)
        if RANK[room] > RANK[room_of(path)]
    ]
    assert against == []


def test_nothing_in_the_network_knows_number_formats_or_files() -> None:
    known = {room for path in (ROOT / "llama").rglob("*.py") for room, _ in imported_rooms(path)}
    assert known <= {"llama", "errors"}
    for path in (ROOT / "llama").rglob("*.py"):
        assert "float8" not in path.read_text(encoding="utf-8"), path


def test_the_map_names_every_room() -> None:
    page = Path(__file__).parent.parent / "docs" / "architecture.md"
    if not page.exists():
        pytest.skip("docs/ is not here")
    block = page.read_text(encoding="utf-8").partition("## Rooms")[2].partition("## Conventions")[0]
    ground, *floors = (line.strip() for line in block.splitlines() if line.startswith("    "))
    rooms = [word for floor in floors for word in re.findall(r"(\w+)(?:/|\.py)(?= )", floor)]
    assert [*ground.split()[:6], *rooms] == list(ORDER)


def test_light_rooms_import_no_torch() -> None:
    chosen = [
        module_of(path)
        for path in sources()
        if room_of(path) in TORCH_FREE_ROOMS
        or path.name == "settings.py"
        or path.relative_to(ROOT).with_suffix("").as_posix() in TORCH_FREE
    ]
    assert len(chosen) > 60
    code = (
        "import importlib, sys\n"
        f"for name in {chosen!r}:\n"
        "    importlib.import_module(name)\n"
        "    if 'torch' in sys.modules: print(name); break\n"
    )
    assert run_python(code) == ""


def test_whoever_only_answers_waits_for_no_compiler() -> None:
    """torch's compiler and what stands behind it take longer to import than the rest of torch."""
    code = (
        "import sys\n"
        "import herd.commands.chat, herd.commands.evaluate, herd.serve.loading\n"
        "print([name for name in ('torch._dynamo', 'torch._inductor', 'sympy') if name in sys.modules])\n"
    )
    assert run_python(code) == "[]"


def test_every_recipe_is_built_without_torch() -> None:
    code = (
        "import sys\n"
        "from herd.recipes import RECIPES, find\n"
        "from herd.road.graph import herd_of\n"
        "assert all(herd_of(find(name)).stages for name in RECIPES)\n"
        "print('torch' in sys.modules)\n"
    )
    assert run_python(code) == "False"


def test_help_is_light() -> None:
    """`herd --help` answers at once because its table imports nothing heavy."""
    code = (
        "import sys\n"
        "from herd.cli import main, parser\n"
        "assert 'COMMAND' in parser().format_help()\n"
        "try: main(['raise', '--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        f"print([name for name in {LIGHT!r} if name in sys.modules])\n"
    )
    assert run_python(code).splitlines()[-1] == "[]"
