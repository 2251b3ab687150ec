"""`python -m bench` lists the rows; `python -m bench NAME [--json] [--save]` runs one of them."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable
from pathlib import Path

from bench.harness import Row, write_result

RESULTS = Path(__file__).parent / "results"


def all_rows() -> dict[str, tuple[str, Callable[[], list[Row]]]]:
    """Name -> (what it measures, how): the `ROWS` of every module of this folder that has them."""
    found: dict[str, tuple[str, Callable[[], list[Row]]]] = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.stem not in ("__init__", "__main__"):
            found |= getattr(importlib.import_module(f"bench.{path.stem}"), "ROWS", {})
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="rows to run, or all; none lists them")
    parser.add_argument("--json", action="store_true", help="one JSON line a row")
    parser.add_argument("--save", action="store_true", help="also keep dated files in bench/results/")
    options = parser.parse_args(arguments)
    rows = all_rows()
    if not options.names:
        for name, (what, _) in rows.items():
            print(f"{name:12} {what}")
        return 0
    names = list(rows) if options.names == ["all"] else options.names
    unknown = [name for name in names if name not in rows]
    if unknown:
        print(f"no row is called {', '.join(unknown)}; there are: {', '.join(rows)}", file=sys.stderr)
        return 2
    for name in names:
        for row in rows[name][1]():
            print(row.to_json() if options.json else row.to_text(), flush=True)
            if options.save:
                write_result(RESULTS, row)
    return 0


if __name__ == "__main__":
    sys.exit(main())
