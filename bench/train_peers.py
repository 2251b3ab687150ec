"""The peers of `bench.train`, as their users write them: a plain PyTorch loop around the model of transformers or of
litgpt, eager or compiled whole, and the Trainer of transformers. Run under `.venv-peers`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.paced import Paced
from bench.train_worker import BETAS, DECAY, RATE

Loss = Callable[[Tensor, Tensor], Tensor]


def _transformers_model(folder: Path) -> Any:
    import transformers

    transformers.logging.set_verbosity_error()
    return transformers.LlamaForCausalLM.from_pretrained(
        folder / "m", dtype=torch.float32, attn_implementation="sdpa"
    ).train()


def _transformers(folder: Path) -> tuple[nn.Module, Loss]:
    model = _transformers_model(folder)

    def loss(tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        found: Tensor = model(input_ids=tokens_BT, labels=targets_BT, shift_labels=targets_BT, use_cache=False).loss
        return found

    return model, loss


def _litgpt(folder: Path) -> tuple[nn.Module, Loss]:
    from litgpt import GPT, Config
    from safetensors.torch import load_file

    config = json.loads((folder / "m" / "config.json").read_text())
    scaling = config.get("rope_scaling") or {}
    names = ("factor", "low_freq_factor", "high_freq_factor")
    adjusted = {name: scaling[name] for name in names if name in scaling}
    if adjusted:
        adjusted["original_max_seq_len"] = scaling["original_max_position_embeddings"]
    model: Any = GPT(
        Config(
            block_size=torch.load(folder / "tokens.pt").shape[2] - 1,
            n_layer=config["num_hidden_layers"],
            n_embd=config["hidden_size"],
            n_head=config["num_attention_heads"],
            n_query_groups=config["num_key_value_heads"],
            intermediate_size=config["intermediate_size"],
            vocab_size=config["vocab_size"],
            padded_vocab_size=config["vocab_size"],
            bias=False,
            rotary_percentage=1.0,
            parallel_residual=False,
            norm_class_name="RMSNorm",
            norm_eps=config["rms_norm_eps"],
            mlp_class_name="LLaMAMLP",
            rope_base=int(config["rope_theta"]),
            rope_adjustments=adjusted or None,
        )
    )
    own: dict[str, Tensor] = {}
    for path in (folder / "m").glob("*.safetensors"):
        own |= load_file(path)
    model.load_state_dict(_litgpt_names(own, config["num_hidden_layers"]))

    def loss(tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        return F.cross_entropy(model(tokens_BT).flatten(0, 1).float(), targets_BT.flatten())

    return model.train(), loss


def _litgpt_names(own: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    named = {
        "transformer.wte.weight": own["model.embed_tokens.weight"],
        "transformer.ln_f.weight": own["model.norm.weight"],
        "lm_head.weight": own["lm_head.weight"],
    }
    for layer in range(layers):
        here, there = f"model.layers.{layer}", f"transformer.h.{layer}"
        qkv = [own[f"{here}.self_attn.{part}_proj.weight"] for part in "qkv"]
        named |= {
            f"{there}.attn.qkv.weight": torch.cat(qkv),
            f"{there}.attn.proj.weight": own[f"{here}.self_attn.o_proj.weight"],
            f"{there}.norm_1.weight": own[f"{here}.input_layernorm.weight"],
            f"{there}.norm_2.weight": own[f"{here}.post_attention_layernorm.weight"],
            f"{there}.mlp.fc_1.weight": own[f"{here}.mlp.gate_proj.weight"],
            f"{there}.mlp.fc_2.weight": own[f"{here}.mlp.up_proj.weight"],
            f"{there}.mlp.proj.weight": own[f"{here}.mlp.down_proj.weight"],
        }
    return named


def plain_loop(
    make: Callable[[Path], tuple[nn.Module, Loss]], compiled: bool, folder: Path, dtype: str, steps: int
) -> None:
    model, loss_of = make(folder)
    if compiled:
        loss_of = torch.compile(loss_of)
    adamw = torch.optim.AdamW(model.parameters(), lr=RATE, betas=BETAS, weight_decay=DECAY, fused=True)
    batches = torch.load(folder / "tokens.pt")
    paced = Paced([batches[0, :, 1:].numel()] * steps)
    for step in range(steps):
        paced.begin()
        tokens_BT, targets_BT = batches[step, :, :-1].contiguous(), batches[step, :, 1:].contiguous()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            loss = loss_of(tokens_BT, targets_BT)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
        adamw.zero_grad(set_to_none=True)
        paced.end(float(loss))


def trainer(folder: Path, dtype: str, steps: int) -> None:
    from transformers import Trainer, TrainerCallback, TrainingArguments

    batches = torch.load(folder / "tokens.pt")
    rows = [{"input_ids": row[:-1], "labels": row[1:], "shift_labels": row[1:]} for each in batches for row in each]
    losses: list[Tensor] = []
    paced = Paced([batches[0, :, 1:].numel()] * steps)

    class Timed(Trainer):  # type: ignore[misc]
        def compute_loss(self, *arguments: Any, **named: Any) -> Any:
            found = super().compute_loss(*arguments, **named)
            losses.append((found[0] if isinstance(found, tuple) else found).detach())
            return found

        def _get_train_sampler(self, *_: Any) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

    class Pace(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            paced.begin()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            paced.end(float(losses[-1]))

    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            per_device_train_batch_size=batches.shape[1],
            max_steps=steps,
            learning_rate=RATE,
            lr_scheduler_type="constant",
            adam_beta1=BETAS[0],
            adam_beta2=BETAS[1],
            weight_decay=DECAY,
            max_grad_norm=1.0,
            optim="adamw_torch_fused",
            bf16=dtype == "bfloat16",
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            remove_unused_columns=False,
        )
        Timed(model=_transformers_model(folder), args=arguments, train_dataset=rows, callbacks=[Pace()]).train()


SIDES: dict[str, Callable[[Path, str, int], None]] = {
    "transformers": partial(plain_loop, _transformers, False),
    "transformers-compiled": partial(plain_loop, _transformers, True),
    "trainer": trainer,
    "litgpt": partial(plain_loop, _litgpt, False),
    "litgpt-compiled": partial(plain_loop, _litgpt, True),
}
