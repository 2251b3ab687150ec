"""What `herd curate` and `herd corpus` are told."""

from __future__ import annotations

import argparse

from herd.arguments.shared import command_in


def add_curate(command: argparse.ArgumentParser) -> None:
    command.add_argument("sources", nargs="+", metavar="SOURCE", help="folders, files or addresses (s3://, hf://, ...)")
    command.add_argument("--out", required=True, metavar="DIR", help="kept/, removed/, report.json, ...")
    command.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the steps, e.g. min_words=5"
    )
    command.add_argument("--workers", type=int, default=0, metavar="N", help="processes (default: one a core)")
    command.add_argument(
        "--runner",
        default="processes",
        choices=("processes", "daft", "ray"),
        help="how units are shared out: processes here (the default), a Daft dataframe here, or one on a Ray cluster",
    )
    command.add_argument("--memory-gb", type=float, default=1.0, metavar="GB", help="for decisions (default: 1)")
    command.add_argument("--unit-mb", type=float, default=256.0, metavar="MB", help="of a file, done again as one")
    command.add_argument("--keep-work", action="store_true", help="so that sources may grow and old units stay done")
    command.add_argument("--json", action="store_true", help="the report, for programs")

    def call(options: argparse.Namespace) -> int:
        from herd.commands.curate import Asked, run

        return run(Asked(**{name: value for name, value in vars(options).items() if name != "call"}))

    command.set_defaults(call=call)


def add_corpus(command: argparse.ArgumentParser) -> None:
    orders = command.add_subparsers(metavar="ORDER", required=True)
    why = command_in(
        orders, "why", "what became of a page, and why", "corpus why https://example.com/ --curated corpus"
    )
    why.add_argument("page", metavar="URL", help="or the id of a document")
    why.add_argument("--curated", default=".", metavar="DIR", help="what `herd curate` wrote (default: here)")

    def call_why(options: argparse.Namespace) -> int:
        from herd.commands.corpus import why

        return why(options.page, options.curated)

    why.set_defaults(call=call_why)
    trace = command_in(
        orders, "trace", "a token back to its document", "corpus trace runs/nano/shards/train:4711 --curated corpus"
    )
    trace.add_argument("place", metavar="SHARD:POSITION", help="a folder of token shards, and a token's number in it")
    trace.add_argument("--curated", default="", metavar="DIR", help="default: what the run's shards were made from")

    def call_trace(options: argparse.Namespace) -> int:
        from herd.commands.corpus import trace

        return trace(options.place, options.curated)

    trace.set_defaults(call=call_trace)
