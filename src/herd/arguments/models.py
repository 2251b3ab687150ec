"""What `herd quantize`, `convert`, `inspect`, `pull` and `release` are told."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from herd.arguments.shared import device


def add_quantize(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", type=Path, help="a BF16 model folder")
    command.add_argument("out", type=Path, help="the folder to write (compressed-tensors FP8)")
    command.add_argument(
        "--policy",
        default="",
        metavar="NAME",
        help="paper (default: feed-forward, first and last layer kept), all-linear (attention too, every layer), "
        "all (the output head too)",
    )

    check = command.add_argument_group("how good it still is (a folder that stands already is measured as it is)")
    check.add_argument(
        "--check",
        nargs="?",
        const="",
        metavar="FILE",
        help="predictions beside those of BF16 on a text, dialogues or documents (default: the run's own, or herd's)",
    )
    check.add_argument("--suite", nargs="?", const="", metavar="FILE", help="scores of both, as herd evaluate has them")
    check.add_argument("--reward", type=Path, metavar="FOLDER", help="a reward model, to judge both models' replies")
    check.add_argument("--tokens", type=int, default=4096, metavar="N", help="of the text, at most (default: 4096)")
    device(command)

    def call(options: argparse.Namespace) -> int:
        from herd.commands.quality import Asked
        from herd.commands.quantize import quantize_and_check

        wanted = not (options.check is None and options.suite is None and options.reward is None)
        asked = Asked(options.check, options.suite, options.reward, options.tokens, options.device) if wanted else None
        return quantize_and_check(options.model, options.out, options.policy, asked)

    command.set_defaults(call=call)


def add_convert(command: argparse.ArgumentParser) -> None:
    command.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="source and target; or what to --prove")
    command.add_argument("--to", default="", metavar="FORMAT", help="hf, meta, gguf or compressed-tensors (FP8)")
    command.add_argument("--dtype", default="", help="bf16, f16, f32, ... (default: as the tensors are)")
    command.add_argument("--model-parallel", type=int, default=1, metavar="N", help="files a meta folder is cut into")
    command.add_argument("--shard-gb", type=float, default=5.0, metavar="GB", help="largest file of an hf folder")
    command.add_argument("--prove", action="store_true", help="show that the models at all PATHs are one and the same")
    command.add_argument("--text", type=Path, metavar="FILE", help="what --prove reads (default: eight languages)")

    def call(options: argparse.Namespace) -> int:
        from herd.commands.convert import prove, run

        if options.prove:
            return prove(options.paths, options.text)
        return run(
            options.paths,
            options.to,
            dtype=options.dtype,
            model_parallel=options.model_parallel,
            shard_gb=options.shard_gb,
        )

    command.set_defaults(call=call)


def add_inspect(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "words", nargs="+", metavar="MODEL | dialogue FILE", help="a model folder or file; or dialogues as JSON lines"
    )
    command.add_argument("--values", action="store_true", help="read every value of a model: NaN, infinities, zeros")
    command.add_argument("--json", action="store_true", help="what is found of a model, for programs")
    command.add_argument("--tokenizer", type=Path, metavar="FOLDER", help="of the dialogues (default: bytes)")

    def call(options: argparse.Namespace) -> int:
        from herd.commands.inspect import inspect

        return inspect(options.words, options.tokenizer, sys.stdout, values=options.values, as_json=options.json)

    command.set_defaults(call=call)


def add_pull(command: argparse.ArgumentParser) -> None:
    command.add_argument("repo", help="OWNER/NAME on the Hugging Face Hub, or on the mirror that HF_ENDPOINT names")
    command.add_argument("--revision", default="main", help="a branch, a tag or a commit (default: main)")
    command.add_argument("--out", default="", metavar="FOLDER", help="where to put it (default: models/NAME)")
    command.add_argument(
        "--layout", default="", choices=["hf", "peft", "meta", "gguf"], help="which of the repository's layouts to take"
    )
    command.add_argument("--only", default="", metavar="PATTERN", help="which GGUF, '*Q8_0.gguf'; or 'original/mp8/*'")

    def call(options: argparse.Namespace) -> int:
        from herd.commands.pull import pull

        return pull(options.repo, revision=options.revision, out=options.out, layout=options.layout, only=options.only)

    command.set_defaults(call=call)


def add_release(command: argparse.ArgumentParser) -> None:
    command.add_argument("folder", type=Path, help="a model folder")
    command.add_argument("repo", help="OWNER/NAME to publish as; made if there is none")
    command.add_argument("--dry-run", action="store_true", help="show the card and the files; send nothing")
    command.add_argument("--private", action="store_true", help="where the repository is made, for its owner alone")
    command.add_argument("--revision", default="main", help="the branch to commit to; made if there is none")
    command.add_argument("--licence", default="", metavar="ID", help="e.g. apache-2.0; a Llama's own is known")
    command.add_argument("--licence-file", type=Path, metavar="FILE", help="its text, published as LICENSE")
    command.add_argument("--from", dest="made_from", type=Path, metavar="FOLDER", help="of GGUF: what was converted")
    command.add_argument("--base", default="", metavar="OWNER/NAME", help="of an adapter: the model it belongs to")
    command.add_argument(
        "--llama",
        default="",
        choices=["weights", "outputs", "none"],
        help="where it is not recorded: what of a Llama of Meta's went into the model",
    )
    command.add_argument("--scores", type=Path, metavar="FILE", help="results in lm-evaluation-harness's layout")
    command.add_argument("--about", type=Path, metavar="FILE", help="your own Markdown, at the card's beginning")
    command.add_argument("--languages", default="", metavar="CODES", help="e.g. en,de")
    command.add_argument("--energy-kwh", type=float, default=0.0, help="as you measured it")
    command.add_argument("--watts", type=float, default=0.0, help="of your machine, to estimate the energy with")
    command.add_argument("--co2-grams", type=float, default=0.0, help="of your electricity, a kWh")

    def call(options: argparse.Namespace) -> int:
        from herd.commands.release import release
        from herd.release.bundle import Options

        stated = Options(
            licence=options.licence,
            licence_file=options.licence_file,
            base=options.base,
            made_from=options.made_from,
            llama=options.llama,
            scores=options.scores,
            about=options.about,
            languages=tuple(code for code in options.languages.split(",") if code),
            kwh=options.energy_kwh,
            watts=options.watts,
            grams=options.co2_grams,
        )
        return release(
            options.folder,
            options.repo,
            stated,
            private=options.private,
            revision=options.revision,
            dry_run=options.dry_run,
        )

    command.set_defaults(call=call)
