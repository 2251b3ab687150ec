"""Training checkpoints as models: any number of processes, one tensor at a time, with what is missing said."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributed import checkpoint as dcp
from transformers import AutoModelForCausalLM

from herd.commands.convert import run as convert_command
from herd.errors import ArtifactError, SettingError
from herd.llama.config import LlamaConfig
from herd.llama.init import init_weights
from herd.llama.model import Llama
from herd.progress import Silent
from herd.text import Tokenizer
from herd.train.run_state import model_files
from herd.train.sharded_files import write_manifest, write_shards
from herd.train.sharded_shards import Shard
from herd.weights.convert import convert
from herd.weights.formats import WriteOptions
from herd.weights.hf import load_config, load_model
from herd.weights.lora import attach
from herd.weights.registry import detect, open_model
from herd.weights.settings import LoraSettings

TALK = Tokenizer.train(["What is the capital of France? Paris"])
CONFIG = LlamaConfig(TALK.vocab_size, 32, 3, 4, 2, 48, tie_embeddings=True)
TOKENS = torch.arange(24).reshape(2, 12)


def llama(seed: int = 0, config: LlamaConfig = CONFIG) -> Llama:
    model = Llama(config)
    init_weights(model, seed)
    return model


def checkpoint(
    folder: Path,
    model: nn.Module,
    ranks: int = 1,
    *,
    mean: nn.Module | None = None,
    tokenizer: Tokenizer | None = None,
    instruct: bool = False,
) -> Path:
    """What `ranks` processes write at step 8, each with its rows of every matrix."""
    folder.mkdir(parents=True)
    state = {"step": 8, "tokens": 512, "objective": "language_modelling", "average_count": 3 if mean else 0}
    (folder / "state.json").write_text(json.dumps(state))
    for name, data in model_files(model, tokenizer, instruct=instruct).items():
        (folder / name).write_bytes(data)
    tensors = {f"model.{name}": param.detach() for name, param in model.named_parameters() if param.requires_grad}
    tensors |= {f"optimiser.exp_avg.{name}": torch.zeros_like(param) for name, param in model.named_parameters()}
    if mean:
        tensors |= {f"average.{name}": param.detach() for name, param in mean.named_parameters()}
    written = []
    for rank in range(ranks):
        own = []
        for name, tensor in tensors.items():
            first = sum(len(part) for part in tensor.tensor_split(ranks)[:rank])
            part = tensor.tensor_split(ranks)[rank]
            if part.numel():
                own.append(Shard(name, tuple(tensor.shape), (first, *([0] * (tensor.ndim - 1))), part.contiguous()))
        written += write_shards(folder, own, rank, ranks)
    write_manifest(folder, written)
    return folder


@pytest.mark.parametrize("ranks", [1, 5])
def test_a_checkpoint_becomes_a_folder_that_transformers_loads(tmp_path: Path, ranks: int) -> None:
    model = llama()
    source = checkpoint(tmp_path / "step-8", model, ranks, tokenizer=TALK)
    assert convert_command([source, tmp_path / "hf"], "hf") == 0
    assert load_config(tmp_path / "hf") == CONFIG
    made = load_model(tmp_path / "hf")
    for (name, one), other in zip(model.named_parameters(), made.parameters(), strict=True):
        assert torch.equal(one, other), name
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(theirs(TOKENS).logits, model.logits(model(TOKENS)), rtol=1e-4, atol=1e-5)
    assert Tokenizer.load(tmp_path / "hf").fingerprint == TALK.fingerprint
    assert json.loads((tmp_path / "hf" / "herd.json").read_text())["step"] == 8


def test_a_base_model_stops_at_the_end_of_text_and_one_that_talks_at_the_end_of_a_turn(tmp_path: Path) -> None:
    base = open_model(checkpoint(tmp_path / "base", llama(), tokenizer=TALK))
    talks = open_model(checkpoint(tmp_path / "talks", llama(), tokenizer=TALK, instruct=True))
    assert (base.bos, base.stops) == (TALK.bos, tuple(TALK.stop_ids[:1]))
    assert talks.stops == tuple(TALK.stop_ids)


def test_within_the_annealing_it_is_the_mean_and_says_so(tmp_path: Path) -> None:
    model, mean = llama(0), llama(1)
    stored = open_model(checkpoint(tmp_path / "step-8", model, 2, mean=mean, tokenizer=TALK))
    for name, param in mean.named_parameters():
        assert torch.equal(stored.tensors[name].values(), param), name
    assert stored.notes == ("the mean of 3 weight sets of the annealing, as the run would end in",)
    assert stored.herd == {"objective": "language_modelling", "step": 8, "tokens": 512, "averaged": 3}


def test_without_a_tokenizer_it_is_said(tmp_path: Path) -> None:
    (note,) = open_model(checkpoint(tmp_path / "step-8", llama())).notes
    assert "no tokenizer is in the checkpoint" in note


def test_a_checkpoint_is_not_taken_for_the_model_folder_that_it_resembles(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "step-8", llama())
    assert [form.name for form in detect(source)] == ["checkpoint", "hf"]


def test_a_damaged_shard_is_named_and_nothing_is_made(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "step-8", llama(), 3)
    shard = source / "model-00001-of-00003.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1] + b"!")
    with pytest.raises(ArtifactError, match=r"model-00001-of-00003\.safetensors is damaged"):
        convert(source, tmp_path / "hf", to="hf")
    assert not (tmp_path / "hf").exists()
    (source / "optimiser-00001-of-00003.safetensors").unlink()  # of no use here, and not asked for
    shard.unlink()
    with pytest.raises(ArtifactError, match=r"model-00001-of-00003\.safetensors is missing"):
        convert(source, tmp_path / "hf", to="hf")


def test_what_cannot_become_a_model_is_refused_by_name(tmp_path: Path) -> None:
    adapted = llama()
    attach(adapted, LoraSettings(rank=2))
    with pytest.raises(ArtifactError, match="tensors of the model were not") as caught:
        open_model(checkpoint(tmp_path / "adapter", adapted))
    assert "writes the adapter" in caught.value.mend
    with pytest.raises(ArtifactError, match="what was trained is no language model"):
        open_model(checkpoint(tmp_path / "reward", nn.Sequential(nn.Linear(3, 3))))
    old = checkpoint(tmp_path / "old", llama())
    for name in ("manifest.json", "config.json"):
        (old / name).unlink()
    with pytest.raises(ArtifactError, match="it does not say"):
        open_model(old)
    with pytest.raises(SettingError, match="does not become a checkpoint"):
        convert(checkpoint(tmp_path / "step-8", llama()), tmp_path / "out", to="checkpoint")


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_folders_around_and_of_others_are_named(tmp_path: Path) -> None:
    checkpoint(tmp_path / "run" / "checkpoints" / "step-8", llama())
    with pytest.raises(ArtifactError, match="the checkpoints of a run are here") as caught:
        open_model(tmp_path / "run" / "checkpoints")
    assert caught.value.mend.endswith("step-8")
    theirs = tmp_path / "theirs"
    dcp.save({"w": torch.zeros(2)}, checkpoint_id=theirs, no_dist=True)
    with pytest.raises(ArtifactError, match="in the pickles of torch"):
        open_model(theirs)


def test_no_more_than_a_few_tensors_are_in_memory(tmp_path: Path) -> None:
    """48 MB of model in tensors of 2 MB: what is not a mapped page of a file grows by a few of them."""
    config = LlamaConfig(2048, 256, 24, 4, 4, 512, tie_embeddings=True)
    model = llama(0, config)
    largest = max(param.nbytes for param in model.parameters())
    total = sum(param.nbytes for param in model.parameters())
    assert total > 20 * largest
    source = checkpoint(tmp_path / "step-8", model, 4)
    del model
    convert(source, tmp_path / "before", to="hf")  # what is imported and made once
    stop, seen = threading.Event(), [anonymous()]

    def watch() -> None:
        while not stop.wait(0.001):
            seen.append(anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    convert(source, tmp_path / "hf", to="hf", options=WriteOptions(dtype="bf16"), progress=Silent())
    stop.set()
    watcher.join()
    assert max(seen) - seen[0] < 6 * largest, f"{(max(seen) - seen[0]) / 1e6:.1f} MB for {total / 1e6:.0f} MB"


def anonymous() -> int:
    """Bytes of this process's memory that no file stands behind."""
    status = Path("/proc/self/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon"))
