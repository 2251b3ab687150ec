"""`herd debug log RUN`: what interrupted a run, what that cost, and its effective training time."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from herd.commands.watch import clock
from herd.errors import ArtifactError
from herd.train.faults.runlog import NAME, Account, Interruption, read_account


def show_log(path: Path, as_json: bool) -> int:
    """Prints the account of every training found in `path`: a run, one of its stages, or a training folder."""
    folders = [path.parent] if path.name == NAME else sorted(found.parent for found in path.rglob(NAME))
    if not folders:
        mend = "name the folder of a run that has begun to train"
        raise ArtifactError("no training has left a log here", where=str(path), mend=mend)
    accounts = [(folder, read_account(folder)) for folder in folders]
    if as_json:
        print(json.dumps([{"folder": str(folder), **plain(account)} for folder, account in accounts], indent=2))
        return 0
    for folder, account in accounts:
        print("\n".join(lines(folder, account)) + "\n")
    return 0


def plain(account: Account) -> dict[str, object]:
    """The account as JSON: seconds throughout."""
    stopped = [asdict(one) for one in account.interruptions]
    facts = {**asdict(account), "interruptions": stopped, "slow": list(account.slow)}
    return {**facts, "wall": account.wall, "effective": account.effective}


def lines(folder: Path, account: Account) -> Iterator[str]:
    """The account in words and two tables: by cause, as the paper's Table 5, and one by one."""
    processes = f"{account.processes} process{'es' if account.processes > 1 else ''}"
    plan = f", {account.plan}" if account.plan else ""
    yield f"run        {folder}"
    yield f"began      {_date(account.started)}, {processes}{plan}"
    yield f"{'ended' if account.ended else 'last sign'}".ljust(11) + _date(account.until)
    again = sum(one.again_seconds for one in account.interruptions)
    down = sum(one.down_seconds for one in account.interruptions)
    yield (
        f"effective  {account.effective:.1%} of {clock(account.wall)} went into steps that count"
        f" ({clock(again)} into steps done again, {clock(down)} between a stop and going on)"
    )
    for slow in account.slow[-5:]:
        yield f"slow       rank {slow['rank']} at step {slow['step']}: {slow['factor']:.2f} times its peers' work time"
    if not account.interruptions:
        yield "no interruptions"
        return
    yield ""
    yield from _by_cause(account.interruptions)
    yield ""
    yield f"{'stopped':23} {'step':>8} {'from':>8} {'lost':>8}  cause"
    yield from map(_one, account.interruptions)


def _by_cause(stopped: Sequence[Interruption]) -> Iterator[str]:
    yield f"{'cause':34} {'category':22} {'count':>5} {'%':>6} {'lost':>8}"
    for (cause, category), count in Counter((one.cause, one.category) for one in stopped).most_common():
        lost = sum(one.lost_seconds for one in stopped if one.cause == cause)
        yield f"{cause:34} {category:22} {count:5} {100 * count / len(stopped):6.1f} {clock(lost):>8}"


def _one(stopped: Interruption) -> str:
    """One line: "from" is the step that the run went on from."""
    origin = "-" if stopped.resumed_step is None else str(stopped.resumed_step)
    ranks = f", rank {', '.join(map(str, stopped.ranks))}" if stopped.ranks else ""
    detail = f": {stopped.detail}" if stopped.detail else ""
    lost = clock(stopped.lost_seconds)
    return f"{_date(stopped.time)} {stopped.step:8,} {origin:>8} {lost:>8}  {stopped.cause}{ranks}{detail}"


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
