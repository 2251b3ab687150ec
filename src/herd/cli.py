"""The command table: names, help, and which function to call. No logic, and nothing heavy is imported before a call.

Every command's help ends with an example. Errors of herd are printed as a sentence, never as a traceback.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from herd import __version__
from herd.commands.telling import abandon, tell
from herd.errors import HerdError, StorageError
from herd.files import NO_ROOM


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (see errors.py). Without `arguments` they are the process's own, which
    one more Ctrl-C then ends at once.
    """
    options = parser().parse_args(arguments)
    try:
        code: int = options.call(options)
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where it can be said that it failed
        return code
    except HerdError as error:
        rank = f" on rank {os.environ['RANK']}" if os.environ.get("WORLD_SIZE", "1") != "1" else ""
        tell(f"herd{rank}: {error}")
        return error.exit_code
    except KeyboardInterrupt as stopped:
        tell("herd: stopped; the same command goes on from here")
        return int(getattr(stopped, "exit_code", 130))  # of a training that was told so by another signal
    except BrokenPipeError:  # the reader left
        abandon(sys.stdout)
        return 141
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        abandon(sys.stdout)
        tell(f"herd: what the command says cannot be written: {error.strerror}")
        return StorageError.exit_code
    finally:
        if arguments is None:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python, cut on its way out, complains


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        prog="herd", description="Raise a herd of Llama 3.1 models, or adopt the released ones."
    )
    root.add_argument("--version", action="version", version=f"herd {__version__}")
    commands = root.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _raise(_command(commands, "raise", "a whole recipe: documents to a family of models and a report", "raise nano"))
    _recipes(_command(commands, "recipes", "the recipes there are, or one of them in full", "recipes nano"))
    _train(_command(commands, "train", "fine-tune an adopted model", "train sft --model llama-8b --data talks.jsonl"))
    _plan(_command(commands, "plan", "layout, speed, memory and cost on a cluster", "plan llama31-405b --gpus 16384"))
    _chat(_command(commands, "chat", "talk to a model in the terminal", "chat runs/nano/flagship --system 'Be brief.'"))
    _serve(_command(commands, "serve", "a model over HTTP, and a page to chat with it", "serve llama --port 8000"))
    _evaluate(_command(commands, "evaluate", "a model on a suite of tasks", "evaluate runs/nano/flagship"))
    _quantize(_command(commands, "quantize", "BF16 to FP8, as released", "quantize runs/nano/flagship flagship-fp8"))
    _convert(_command(commands, "convert", "a model from one format to another", "convert original model --to hf"))
    _inspect(_command(commands, "inspect", "what a model is, and what is wrong with it", "inspect Llama-3.1-8B"))
    _debug(_command(commands, "debug", "what went wrong with a training", "debug log runs/nano"))
    _release(_command(commands, "release", "a model to the hub, with its card", "release FOLDER me/NAME --dry-run"))
    _pull(_command(commands, "pull", "a model from the hub", "pull meta-llama/Llama-3.1-8B-Instruct"))
    _doctor(_command(commands, "doctor", "this machine, and what it can run how fast", "doctor"))
    return root


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, about: str, example: str
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=about,
        description=about.capitalize() + ".",
        epilog=f"example: herd {example}",
    )


def _device(command: argparse.ArgumentParser, default: str = "auto") -> None:
    command.add_argument(
        "--device",
        default=default,
        metavar="NAME",
        help="auto, cpu, cuda or cuda:N; auto (the default) is a CUDA device with room for the model, else the CPU",
    )


def _processes(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--plan",
        default="",
        metavar="AXIS=N,...",
        help="train on many processes, e.g. dp=2,tp=2 under: torchrun --nproc-per-node 4 -m herd ...",
    )


def _raise(command: argparse.ArgumentParser) -> None:
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
    _processes(command)

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


def _train(command: argparse.ArgumentParser) -> None:
    command.add_argument("recipe", help="adopt-sft, adopt-dpo, adopt-reward, adopt-distil, or a saved recipe.json")
    command.add_argument("--model", type=Path, required=True, metavar="FOLDER", help="the model to go on from")
    command.add_argument(
        "--data", type=Path, required=True, metavar="PATH", help="JSONL, JSON or Parquet; the columns are recognised"
    )
    command.add_argument("--out", default="", metavar="FOLDER", help="where the run lives (default: runs/RECIPE)")
    command.add_argument("--full", action="store_true", help="train every weight, without an adapter")
    command.add_argument("--base", choices=("plain", "fp8", "int8"), help="what the frozen base is kept in")
    _device(command, default="")
    command.add_argument("--teacher", default="", metavar="URL|FOLDER", help="of adopt-distil: an API or a model")
    command.add_argument("--teacher-model", default="", metavar="NAME", help="the name the API knows it by")
    command.add_argument("--columns", nargs="+", default=[], metavar="OURS=THEIRS", help="rename columns first")
    command.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="change a setting, e.g. adapter.rank=64"
    )
    command.add_argument("--dry-run", action="store_true", help="only show how the data is read and what would learn")
    _processes(command)

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


def _recipes(command: argparse.ArgumentParser) -> None:
    command.add_argument("recipe", nargs="?", help="print this one with every setting, as JSON")

    def call(options: argparse.Namespace) -> int:
        from herd.commands.recipes import show

        return show(options.recipe)

    command.set_defaults(call=call)


def _plan(command: argparse.ArgumentParser) -> None:
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


def _chat(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", type=Path, help="a model folder")
    command.add_argument("--system", help="a system prompt")
    command.add_argument("--temperature", type=float, default=0.6)
    command.add_argument("--top-p", type=float, default=0.9)
    command.add_argument("--max-tokens", type=int, default=1024, help="of one answer")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument(
        "--fp8", nargs="?", const="paper", default="", metavar="POLICY", help="quantise BF16 while it is read"
    )
    command.add_argument(
        "--draft", default="", metavar="SMALL", help="a small model of the herd that guesses ahead, or 'prompt'"
    )
    _device(command)

    def call(options: argparse.Namespace) -> int:
        from herd.commands.chat import chat

        chat(
            options.model,
            system=options.system,
            temperature=options.temperature,
            top_p=options.top_p,
            max_tokens=options.max_tokens,
            seed=options.seed,
            device=options.device,
            fp8=options.fp8,
            draft=options.draft,
        )
        return 0

    command.set_defaults(call=call)


def _serve(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", type=Path, help="a model folder or file")
    command.add_argument("--host", default="127.0.0.1", help="where to listen (default: this machine alone)")
    command.add_argument("--port", type=int, default=8000, help="0: any free one (default: 8000)")
    command.add_argument("--served-name", default="", metavar="NAME", help="what clients call the model")
    command.add_argument(
        "--fp8", nargs="?", const="paper", default="", metavar="POLICY", help="quantise BF16 while it is read"
    )
    command.add_argument(
        "--draft", default="", metavar="SMALL", help="a small model of the herd that guesses ahead, or 'prompt'"
    )
    command.add_argument(
        "--api-key", action="append", default=[], metavar="KEY", help="clients must send; `ps` shows it"
    )
    command.add_argument("--api-key-file", type=Path, metavar="FILE", help="keys, one a line; HERD_API_KEY works too")
    command.add_argument("--no-key", action="store_true", help="let everybody in who reaches --host")
    command.add_argument("--max-running", type=int, default=32, metavar="N", help="requests computed at once")
    command.add_argument("--max-queue", type=int, default=256, metavar="N", help="requests that wait; more get 429")
    command.add_argument("--max-prompt-tokens", type=int, default=0, metavar="N", help="0: as many as fit")
    command.add_argument("--max-answer-tokens", type=int, default=0, metavar="N", help="the same")
    command.add_argument("--cache-gb", type=float, default=0.0, metavar="GB", help="for keys and values")
    command.add_argument("--cache-dtype", default="", choices=["fp8", "bf16", "fp32"], help="default: the model's")
    command.add_argument("--cache-tokens", type=int, default=0, metavar="N", help="the same, in positions")
    command.add_argument(
        "--mapped", action="store_true", help="leave the weights in the file: starts sooner, decodes slower"
    )
    command.add_argument(
        "--cors", action="append", default=[], metavar="ORIGIN", help="pages of https://SITE may call; '*' is any"
    )
    command.add_argument(
        "--allowed-host", action="append", default=[], metavar="NAME", help="names that the server answers to"
    )
    _device(command)
    command.add_argument("--engine", choices=("herd", "vllm"), default="herd", help="what computes (default: herd)")
    command.add_argument("--tensor-parallel", type=int, default=1, metavar="N", help="vllm: GPUs of one machine")
    command.add_argument("--pipeline-parallel", type=int, default=1, metavar="N", help="vllm: groups of these")
    command.add_argument(
        "--vllm-option", action="append", default=[], metavar="NAME=VALUE", help="vllm: any of its own, e.g. seed=1"
    )

    def call(options: argparse.Namespace) -> int:
        from herd.commands.serve import Asked, name_of, serve
        from herd.serve.settings import ServeSettings

        settings = ServeSettings(
            name=options.served_name or name_of(options.model),
            host=options.host,
            port=options.port,
            origins=tuple(options.cors),
            hosts=tuple(options.allowed_host),
            max_running=options.max_running,
            max_queue=options.max_queue,
            max_prompt_tokens=options.max_prompt_tokens,
            max_answer_tokens=options.max_answer_tokens,
        )
        asked = Asked(
            model=options.model,
            device=options.device,
            fp8=options.fp8,
            draft=options.draft,
            cache_dtype=options.cache_dtype,
            cache_tokens=options.cache_tokens,
            cache_gb=options.cache_gb,
            mapped=options.mapped,
            api_keys=tuple(options.api_key),
            api_key_file=options.api_key_file,
            open_to_all=options.no_key,
            engine=options.engine,
            tensor_parallel=options.tensor_parallel,
            pipeline_parallel=options.pipeline_parallel,
            vllm_options=tuple(options.vllm_option),
        )
        return serve(asked, settings)

    command.set_defaults(call=call)


def _evaluate(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", type=Path, help="a model folder")
    command.add_argument(
        "--tasks", type=Path, help="tasks as JSON lines (default: the suite of the run the model is from)"
    )
    command.add_argument("--out", type=Path, help="write lm-evaluation-harness result files here")
    _device(command)

    def call(options: argparse.Namespace) -> int:
        from herd.commands.evaluate import evaluate

        return evaluate(options.model, options.tasks, options.out, options.device)

    command.set_defaults(call=call)


def _quantize(command: argparse.ArgumentParser) -> None:
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
    _device(command)

    def call(options: argparse.Namespace) -> int:
        from herd.commands.quality import Asked
        from herd.commands.quantize import quantize_and_check

        wanted = not (options.check is None and options.suite is None and options.reward is None)
        asked = Asked(options.check, options.suite, options.reward, options.tokens, options.device) if wanted else None
        return quantize_and_check(options.model, options.out, options.policy, asked)

    command.set_defaults(call=call)


def _convert(command: argparse.ArgumentParser) -> None:
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


def _doctor(command: argparse.ArgumentParser) -> None:
    def call(options: argparse.Namespace) -> int:
        from herd.commands.doctor import doctor

        return doctor()

    command.set_defaults(call=call)


def _inspect(command: argparse.ArgumentParser) -> None:
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


def _debug(command: argparse.ArgumentParser) -> None:
    kinds = command.add_subparsers(title="kinds", metavar="KIND", required=True)
    log = _command(kinds, "log", "what interrupted a run, and its effective training time", "debug log runs/nano")
    log.add_argument("run", type=Path, help="the folder of a run, of one of its stages, or of a training")
    log.add_argument("--json", action="store_true", help="for machines")

    def call_log(options: argparse.Namespace) -> int:
        from herd.commands.debug_log import show_log

        return show_log(options.run, options.json)

    log.set_defaults(call=call_log)
    nan = _command(kinds, "nan", "replay a failed step: which module first is not finite", "debug nan RUN/training")
    nan.add_argument("folder", type=Path, help="a training folder in which a step failed, or one of its checkpoints")
    nan.add_argument("--batch", type=Path, metavar="FILE", help="a saved batch (default: the newest in the folder)")

    def call_nan(options: argparse.Namespace) -> int:
        from herd.commands.debug_nan import replay_failed

        return replay_failed(options.folder, options.batch)

    nan.set_defaults(call=call_nan)
    compare = _command(
        kinds, "compare", "the same steps under several plans: what differs first", "debug compare dp=1 tp=2 --model M"
    )
    compare.add_argument("plans", nargs="+", metavar="PLAN", help="as for --plan; dp=1 is one process")
    compare.add_argument("--model", type=Path, required=True, help="a model folder or a checkpoint, small")
    compare.add_argument("--batch", type=Path, metavar="FILE", help="a saved batch (default: made-up documents)")
    compare.add_argument("--steps", type=int, default=1, help="updates (default: 1)")
    compare.add_argument(
        "--tolerance", type=float, default=1e-5, help="of a tensor's largest value (default: 1e-5; 0: every bit)"
    )
    _device(compare, default="cpu")

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


def _pull(command: argparse.ArgumentParser) -> None:
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


def _release(command: argparse.ArgumentParser) -> None:
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
