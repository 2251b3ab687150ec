"""What `herd chat`, `serve` and `evaluate` are told."""

from __future__ import annotations

import argparse
from pathlib import Path

from herd.arguments.shared import device


def add_chat(command: argparse.ArgumentParser) -> None:
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
    device(command)

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


def add_serve(command: argparse.ArgumentParser) -> None:
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
    device(command)
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


def add_evaluate(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", type=Path, help="a model folder")
    command.add_argument(
        "--tasks", type=Path, help="tasks as JSON lines (default: the suite of the run the model is from)"
    )
    command.add_argument("--out", type=Path, help="write lm-evaluation-harness result files here")
    device(command)

    def call(options: argparse.Namespace) -> int:
        from herd.commands.evaluate import evaluate

        return evaluate(options.model, options.tasks, options.out, options.device)

    command.set_defaults(call=call)
