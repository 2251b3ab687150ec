"""Which code does the work: the level forced or found, the library absent, torch's own threads."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from herd.errors import SettingError
from herd.kernels import library, linear_fp8, reference, status
from herd.kernels.e4m3 import quantize_rows

SOURCES = Path(library.__file__).parent / "csrc"


@pytest.fixture(autouse=True)
def fresh():
    library.kernels.cache_clear()
    yield
    library.kernels.cache_clear()


@pytest.fixture
def compiled():
    path = library.library_path()
    if path is None:
        pytest.skip("the kernels were not compiled: no C compiler when herd was installed")
    return path


def test_without_the_library_torch_does_the_work_and_status_says_why(monkeypatch):
    monkeypatch.delenv(library.VARIABLE, raising=False)
    monkeypatch.setattr(library, "library_path", lambda: None)
    weight, scale = quantize_rows(torch.randn(5, 64))
    x = torch.randn(3, 64)
    torch.testing.assert_close(linear_fp8(x, weight, scale), reference.linear_fp8(x, weight, scale))
    assert "not installed" in status()
    assert "C compiler" in status()


def test_a_level_that_cannot_be_is_refused(monkeypatch, compiled):
    monkeypatch.setenv(library.VARIABLE, "sse9")
    with pytest.raises(SettingError, match="no level"):
        library.kernels()
    monkeypatch.setenv(library.VARIABLE, library.LEVELS[-1])
    monkeypatch.setattr(library, "_load", lambda path: _Old())
    with pytest.raises(SettingError, match="portable is the highest"):
        library.kernels()
    monkeypatch.setattr(library, "library_path", lambda: None)
    with pytest.raises(SettingError, match="not installed"):
        library.kernels()


class _Old:
    """A library on a processor without any special instructions."""

    def herd_best_level(self):
        return 0


def test_a_library_of_another_version_is_told_with_what_mends_it(monkeypatch):
    import _ctypes  # a library that has none of ours: what a pull leaves beside newer code

    monkeypatch.setattr(library, "library_path", lambda: Path(_ctypes.__file__))
    library.kernels.cache_clear()
    with pytest.raises(SettingError, match="of another version") as error:
        library.kernels()
    assert "make setup" in error.value.mend
    monkeypatch.setenv("HERD_KERNELS", "torch")
    assert library.kernels() is None
    library.kernels.cache_clear()


def test_status_names_the_level_and_the_threads(monkeypatch, compiled):
    monkeypatch.setenv(library.VARIABLE, "portable")
    assert "without special instructions" in status()
    library.kernels.cache_clear()
    monkeypatch.setenv(library.VARIABLE, library.TORCH)
    assert status() == "torch, as HERD_KERNELS asks"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_second_openmp_library_is_loaded(compiled):
    """The threads are torch's: after products on two threads there is one pool of them."""
    code = (
        "import os, re, torch; torch.set_num_threads(2)\n"
        "a = torch.randn(512, 512); a @ a; torch.randn(10**6).exp()\n"
        "from herd.kernels import library, linear_fp8\n"
        "from herd.kernels.e4m3 import quantize_rows\n"
        "pools = lambda: set(re.findall(r'/\\S*lib(?:gomp|omp|iomp)\\S*', open('/proc/self/maps').read()))\n"
        "before, threads = pools(), len(os.listdir('/proc/self/task'))\n"
        "linear_fp8(a, *quantize_rows(torch.randn(2048, 512)))\n"
        "print(library.kernels().threaded, pools() == before, len(os.listdir('/proc/self/task')) == threads)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "True"]


@pytest.mark.slow
def test_the_sources_compile_without_a_warning(tmp_path):
    sources = [str(path) for path in sorted(SOURCES.glob("*.c"))]
    assert len(sources) > 3
    flags = ["-O3", "-std=c11", "-ffp-contract=off", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror"]
    command = ["gcc", *flags, "-shared", "-fPIC", *sources, "-o", str(tmp_path / "k.so")]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no gcc here")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["gcc", "/nonexistent/cc"])
def test_herd_is_built_with_and_without_a_compiler(tmp_path, compiler):
    pytest.importorskip("setuptools")
    root = Path(__file__).parents[2]
    if not (root / "setup.py").exists():
        pytest.skip("setup.py is not here")
    if compiler == "gcc" and shutil.which("gcc") is None:
        pytest.skip("no gcc here")
    command = [sys.executable, "setup.py", "-q", "build_ext", "-b", str(tmp_path / "lib"), "-t", str(tmp_path / "temp")]
    environment = {**os.environ, "CC": compiler, "LDSHARED": f"{compiler} -shared"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = list((tmp_path / "lib").rglob("_kernels*"))
    assert len(made) == (compiler == "gcc")
    for path in made:
        assert library._load(path).herd_best_level() < len(library.LEVELS)
