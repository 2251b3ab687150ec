"""What `herd raise`, `train` and `debug` are told."""

from __future__ import annotations

import argparse
from pathlib import Path

from herd.arguments.shared import command_in, device, processes


def add_raise(command: argparse.ArgumentParser) -> None:
    command.add_argument("recipe", help="a recipe's name (nano, pico, ...) or a saved recipe.json")
    command.add_argument(
        "--documents", default="", metavar="PATH", help="your own texts, mixed in: text, JSONL, Parquet, HTML"
    )
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="change a setting, e.g. posttrain.start.steps=400 or device=cpu; all are applied, then checked together",
    )
    command.add_argument("--out", default="", metavar="FOLDER", help="where the run lives (default: runs/RECIPE)")
    command.add_argument("--dry-run", action="store_true", help="only say what each stage reads, costs and takes")
    command.add_argument("--until", default="", metavar="STAGE", help="end with this stage, e.g. flagship-base")
    processes(command)

    def call(options: argparse.Namespace) -> int:
        from herd.commands.raising import raise_herd

        return raise_herd(
            options.recipe,
            assignments=options.set,
            documents=options.documents,
            out=options.out,
            dry_run=options.dry_run,
            plan=options.plan,
            until=options.until,
        )

    command.set_defaults(call=call)


def add_train(command: argparse.ArgumentParser) -> None:
    command.add_argument("recipe", help="adopt-sft, adopt-dpo, adopt-reward, adopt-distil, or a saved recipe.json")
    command.add_argument("--model", type=Path, required=True, metavar="FOLDER", help="the model to go on from")
    command.add_argument(
        "--data", type=Path, required=True, metavar="PATH", help="JSONL, JSON or Parquet; the columns are recognised"
    )
    command.add_argument("--out", default="", metavar="FOLDER", help="where the run lives (default: runs/RECIPE)")
    command.add_argument("--full", action="store_true", help="train every weight, without an adapter")
    command.add_argument("--base", choices=("plain", "fp8", "int8"), help="what the frozen base is kept in")
    device(command, default="")
    command.add_argument("--teacher", default="", metavar="URL|FOLDER", help="of adopt-distil: an API or a model")
    command.add_argument("--teacher-model", default="", metavar="NAME", help="the name the API knows it by")
    command.add_argument("--columns", nargs="+", default=[], metavar="OURS=THEIRS", help="rename columns first")
    command.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="change a setting, e.g. adapter.rank=64"
    )
    command.add_argument("--dry-run", action="store_true", help="only show how the data is read and what would learn")
    processes(command)

    def call(options: argparse.Namespace) -> int:
        from herd.commands.train import Asked, train_adopted

        asked = Asked(
            recipe=options.recipe,
            model=options.model,
            data=options.data,
            out=options.out,
            assignments=options.set,
            full=options.full,
            base=options.base or "",
            device=options.device,
            teacher=options.teacher,
            teacher_model=options.teacher_model,
            columns=options.columns,
            plan=options.plan,
        )
        return train_adopted(asked, options.dry_run)

    command.set_defaults(call=call)


def add_debug(command: argparse.ArgumentParser) -> None:
    kinds = command.add_subparsers(title="kinds", metavar="KIND", required=True)
    log = command_in(kinds, "log", "what interrupted a run, and its effective training time", "debug log runs/nano")
    log.add_argument("run", type=Path, help="the folder of a run, of one of its stages, or of a training")
    log.add_argument("--json", action="store_true", help="for machines")

    def call_log(options: argparse.Namespace) -> int:
        from herd.commands.debug_log import show_log

        return show_log(options.run, options.json)

    log.set_defaults(call=call_log)
    nan = command_in(kinds, "nan", "replay a failed step: which module first is not finite", "debug nan RUN/training")
    nan.add_argument("folder", type=Path, help="a training folder in which a step failed, or one of its checkpoints")
    nan.add_argument("--batch", type=Path, metavar="FILE", help="a saved batch (default: the newest in the folder)")

    def call_nan(options: argparse.Namespace) -> int:
        from herd.commands.debug_nan import replay_failed

        return replay_failed(options.folder, options.batch)

    nan.set_defaults(call=call_nan)
    compare = command_in(
        kinds, "compare", "the same steps under several plans: what differs first", "debug compare dp=1 tp=2 --model M"
    )
    compare.add_argument("plans", nargs="+", metavar="PLAN", help="as for --plan; dp=1 is one process")
    compare.add_argument("--model", type=Path, required=True, help="a model folder or a checkpoint, small")
    compare.add_argument("--batch", type=Path, metavar="FILE", help="a saved batch (default: made-up documents)")
    compare.add_argument("--steps", type=int, default=1, help="updates (default: 1)")
    compare.add_argument(
        "--tolerance", type=float, default=1e-5, help="of a tensor's largest value (default: 1e-5; 0: every bit)"
    )
    device(compare, default="cpu")

    def call_compare(options: argparse.Namespace) -> int:
        from herd.commands.debug_compare import compare_plans

        return compare_plans(
            options.plans,
            options.model,
            options.batch,
            steps=options.steps,
            tolerance=options.tolerance,
            device=options.device,
        )

    compare.set_defaults(call=call_compare)
