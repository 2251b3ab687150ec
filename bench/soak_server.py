"""`herd serve` as its users start it, with a second door: `python -m bench.soak_server MODEL ...` (serve's arguments).

For every line on standard input it prints one of JSON: asyncio tasks that are not done, and what Scheduler.check finds
when nothing runs. It looks from outside, by the garbage collector: the server knows nothing of it.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import threading

from herd.cli import main
from herd.generate.scheduler import Scheduler


def look() -> dict[str, object]:
    gc.collect()
    living = gc.get_objects()
    tasks = [one for one in living if isinstance(one, asyncio.Task) and not one.done()]
    problem = ""
    for scheduler in (one for one in living if isinstance(one, Scheduler)):
        if scheduler.busy:
            problem = f"{scheduler.n_running} requests run and {scheduler.n_waiting} wait"
        else:
            try:
                scheduler.check()
            except AssertionError as error:
                problem = f"the scheduler's invariants: {error}"
    return {"tasks": len(tasks), "objects": len(living), "problem": problem}


def answer() -> None:
    for _ in sys.stdin:
        print(json.dumps(look()), flush=True)


if __name__ == "__main__":
    threading.Thread(target=answer, daemon=True).start()
    sys.exit(main(["serve", *sys.argv[1:]]))
