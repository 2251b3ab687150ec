"""What several commands are told alike."""

from __future__ import annotations

import argparse


def command_in(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, about: str, example: str
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=about,
        description=about.capitalize() + ".",
        epilog=f"example: herd {example}",
    )


def device(command: argparse.ArgumentParser, default: str = "auto") -> None:
    command.add_argument(
        "--device",
        default=default,
        metavar="NAME",
        help="auto, cpu, cuda or cuda:N; auto (the default) is a CUDA device with room for the model, else the CPU",
    )


def processes(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--plan",
        default="",
        metavar="AXIS=N,...",
        help="train on many processes, e.g. dp=2,tp=2 under: torchrun --nproc-per-node 4 -m herd ...",
    )
