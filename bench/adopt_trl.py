"""TRL's side of `bench.adopt`: what its users write (`SFTTrainer`, `DPOTrainer` with a PEFT adapter), told apart into
steps by a callback. Its batches are herd's, in herd's order; of ragged conversations it makes groups of like length.
"""

from __future__ import annotations

import tempfile
from typing import Any

from bench.adopt_worker import (
    BATCH,
    BETA,
    BETA2,
    LENGTH,
    RATE,
    VOCABULARY,
    Job,
    conversations,
    herd_order,
    pairs,
)
from bench.paced import Paced, peak_mib, tell, wait


def trl(job: Job) -> None:
    import torch
    import transformers
    from trl import DPOTrainer, SFTTrainer

    transformers.logging.set_verbosity_error()
    paced, losses = Paced(), list[float]()
    base: Any = DPOTrainer if job.way == "dpo" else SFTTrainer

    class Trainer(base):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *args: Any, **named: Any) -> Any:
            return dataset if job.way == "dpo" else super()._prepare_dataset(dataset, *args, **named)

        def training_step(self, model: Any, inputs: Any, *args: Any, **named: Any) -> Any:
            paced.seen += int((inputs["labels"][:, 1:] != -100).sum() if job.way != "dpo" else _real(inputs))
            loss = super().training_step(model, inputs, *args, **named)
            losses.append(float(loss))
            return loss

    narrow = job.dtype == "bfloat16" and job.way != "weights"
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(
        job.folder / "m", dtype=torch.bfloat16 if narrow else torch.float32
    )
    if job.way != "weights":
        import peft

        model = peft.PeftModel.from_pretrained(model, job.folder / "a", is_trainable=True)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(
            model=model,
            args=_arguments(job, scratch),
            train_dataset=_dataset(job),
            processing_class=_tokenizer(),
            callbacks=[_callback(paced, losses)],
        )
        _check(job, trainer)
        trainer.train()
    wait()
    tell(peak_mib=peak_mib())


def _callback(paced: Paced, losses: list[float]) -> Any:
    import transformers

    class Steps(transformers.TrainerCallback):
        def on_step_begin(self, *args: Any, **named: Any) -> None:
            paced.begin()

        def on_step_end(self, *args: Any, **named: Any) -> None:
            paced.end(losses[-1])

    return Steps()


def _real(inputs: Any) -> int:
    return int(inputs["attention_mask"].sum())


def _check(job: Job, trainer: Any) -> None:
    """What both sides must agree on before anything is learnt: the loss, or DPO's sums, of the first eight items."""
    import torch

    dataset = trainer.train_dataset
    inputs = trainer.data_collator([dataset[index] for index in range(BATCH)])
    with torch.no_grad(), trainer.accelerator.autocast():
        if job.way == "dpo":
            tell(check=[float(side.mean()) for side in trainer.compute_ref_log_probs(trainer.model, inputs)])
        else:
            trainer.model.eval()
            tell(check=[float(trainer.model(**inputs).loss)])
            trainer.model.train()


def _arguments(job: Job, scratch: str) -> Any:
    from trl import DPOConfig, SFTConfig

    common: dict[str, Any] = {
        "output_dir": scratch,
        "per_device_train_batch_size": BATCH,
        "max_steps": job.steps,
        "learning_rate": RATE,
        "lr_scheduler_type": "constant",
        "adam_beta2": BETA2,
        "max_grad_norm": 1.0,
        "max_length": 2 * LENGTH if job.way == "dpo" else LENGTH,
        "gradient_checkpointing": False,
        "bf16": job.dtype == "bfloat16",
        "fp16": False,
        "use_cpu": True,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "optim": "adamw_torch_fused",
        "train_sampling_strategy": "sequential",
    }
    if job.way == "dpo":
        return DPOConfig(**common, beta=BETA, precompute_ref_log_probs=False)
    if job.data == "ragged":
        common["train_sampling_strategy"] = "group_by_length"
    return SFTConfig(**common, packing=False)


def _dataset(job: Job) -> Any:
    import datasets

    order = herd_order()
    if job.way == "dpo":
        rows = pairs(job.data)
        names = ("prompt_ids", "chosen_ids", "rejected_ids")
        return datasets.Dataset.from_dict({name: [rows[i][k] for i in order] for k, name in enumerate(names)})
    items = conversations(job.data)
    return datasets.Dataset.from_dict({"input_ids": [items[index] for index in order]})


def _tokenizer() -> Any:
    import tokenizers
    import transformers

    words = {f"w{number}": number for number in range(VOCABULARY)}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w0"))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="w0", eos_token="w1", unk_token="w0")
