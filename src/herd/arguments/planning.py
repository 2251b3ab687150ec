"""What `herd recipes`, `plan` and `doctor` are told."""

from __future__ import annotations

import argparse


def add_recipes(command: argparse.ArgumentParser) -> None:
    command.add_argument("recipe", nargs="?", help="print this one with every setting, as JSON")

    def call(options: argparse.Namespace) -> int:
        from herd.commands.recipes import show

        return show(options.recipe)

    command.set_defaults(call=call)


def add_plan(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "model", nargs="?", default="", help="llama31-8b, -70b, -405b, a recipe, a folder, a config.json"
    )
    command.add_argument(
        "--gpus", type=int, default=0, metavar="N", help="default: one node, or what --budget-days needs"
    )
    command.add_argument(
        "--gpu", default="h100", metavar="NAME", help="a100, h100, h200, b200, or a measured FILE.json"
    )
    command.add_argument("--network", default="", metavar="NAME", help="roce (the paper's), infiniband, ethernet, ...")
    command.add_argument("--watts", type=float, default=0.0, metavar="W", help="the GPUs' power limit")
    command.add_argument("--seq", type=int, default=0, metavar="N", help="tokens of a sequence (default: 8192)")
    command.add_argument("--batch-tokens", type=int, default=0, metavar="N", help="of a step (default: 16,777,216)")
    command.add_argument("--tokens", type=float, default=0.0, metavar="N", help="of the whole run (default: 15.6e12)")
    command.add_argument(
        "--layout", default="", metavar="PLAN", help="what is decided, e.g. tp=8,pp=16 (rest: searched)"
    )
    command.add_argument("--rows", type=int, default=0, metavar="N", help="sequences of a micro-batch")
    command.add_argument("--fp8", action="store_true", help="the layers' products in FP8")
    command.add_argument("--budget-days", type=float, default=0.0, metavar="D", help="the fewest GPUs that keep to it")
    command.add_argument("--dollars", type=float, default=0.0, metavar="D", help="of a GPU and hour")
    command.add_argument("--serve", action="store_true", help="plan answering instead of training")
    command.add_argument("--context", type=int, default=0, metavar="N", help="of --serve (default: 8192)")
    command.add_argument("--seed", type=int, default=0, help="of the interruptions")
    command.add_argument("--json", action="store_true", help="for programs")
    command.add_argument("--picture", default="", metavar="FILE.svg", help="the schedule, time and memory")
    command.add_argument("--published", action="store_true", help="the simulation beside what others measured")
    command.add_argument("--measure", default="", metavar="FILE.json", help="measure this machine, to plan for it")

    def call(options: argparse.Namespace) -> int:
        from herd.commands.plan import Asked, run

        asked = Asked(**{name: value for name, value in vars(options).items() if name != "call"})
        return run(asked)

    command.set_defaults(call=call)


def add_doctor(command: argparse.ArgumentParser) -> None:
    def call(options: argparse.Namespace) -> int:
        from herd.commands.doctor import doctor

        return doctor()

    command.set_defaults(call=call)
