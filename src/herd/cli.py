"""The command table: names, help, and who adds the arguments. No logic, and nothing heavy is imported before a call.

Every command's help ends with an example. Errors of herd are printed as a sentence, never as a traceback.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence

from herd import __version__
from herd.arguments import answering, corpus, models, planning, training
from herd.arguments.shared import command_in
from herd.commands.telling import abandon, tell
from herd.errors import HerdError, StorageError
from herd.files import NO_ROOM

# Name, help, an example, and what adds its arguments, in the order of `herd --help`.
_COMMANDS: tuple[tuple[str, str, str, Callable[[argparse.ArgumentParser], None]], ...] = (
    ("raise", "a whole recipe: documents to a family of models and a report", "raise nano", training.add_raise),
    ("recipes", "the recipes there are, or one of them in full", "recipes nano", planning.add_recipes),
    ("train", "fine-tune an adopted model", "train sft --model llama-8b --data talks.jsonl", training.add_train),
    ("curate", "documents to a clean corpus", "curate crawl/ --out corpus", corpus.add_curate),
    ("corpus", "what became of a page, where a token is from", "corpus why https://example.com/", corpus.add_corpus),
    ("plan", "layout, speed, memory and cost on a cluster", "plan llama31-405b --gpus 16384", planning.add_plan),
    ("chat", "talk to a model in the terminal", "chat runs/nano/flagship --system 'Be brief.'", answering.add_chat),
    ("serve", "a model over HTTP, and a page to chat with it", "serve llama --port 8000", answering.add_serve),
    ("evaluate", "a model on a suite of tasks", "evaluate runs/nano/flagship", answering.add_evaluate),
    ("quantize", "BF16 to FP8, as released", "quantize runs/nano/flagship flagship-fp8", models.add_quantize),
    ("convert", "a model from one format to another", "convert original model --to hf", models.add_convert),
    ("inspect", "what a model is, and what is wrong with it", "inspect Llama-3.1-8B", models.add_inspect),
    ("debug", "what went wrong with a training", "debug log runs/nano", training.add_debug),
    ("release", "a model to the hub, with its card", "release FOLDER me/NAME --dry-run", models.add_release),
    ("pull", "a model from the hub", "pull meta-llama/Llama-3.1-8B-Instruct", models.add_pull),
    ("doctor", "this machine, and what it can run how fast", "doctor", planning.add_doctor),
)


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
    for name, about, example, add in _COMMANDS:
        add(command_in(commands, name, about, example))
    return root
