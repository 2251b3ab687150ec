"""The loop: it learns, averages, resumes to the same bits, survives kills and full disks, and stops when it must."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from train_models import random_documents, tiny_model, tiny_settings

from herd import files
from herd.errors import ArtifactError, InputError, SettingError, StorageError, TrainingError
from herd.train.batch import Batch
from herd.train.checkpoints import Checkpoints
from herd.train.guards import Guard
from herd.train.loop import train
from herd.train.objectives.language_modelling import LanguageModelling
from herd.train.objectives.terms import LossTerms
from herd.train.optimiser import Optimiser
from herd.train.sources import Batches, FixedBatches, TokenStream


class Stopped(Exception):
    """A run ends here, without a word to the loop."""


class Notes:
    """A Progress that keeps notes and, if asked, raises after a step."""

    def __init__(self, stop_after: int = 0, error: type[BaseException] = Stopped) -> None:
        self.notes: list[str] = []
        self.stop_after, self.error = stop_after, error

    def update(self, done, total, unit, facts=None):
        if done == self.stop_after:
            raise self.error

    def note(self, text):
        self.notes.append(text)


def source_for(settings):
    return Batches(TokenStream(random_documents(30), settings.seq_len, settings.seed), settings)


def run(folder, settings, progress=None, model=None, **more):
    model = model or tiny_model()
    result = train(model, LanguageModelling(), source_for(settings), settings, folder, progress, **more)
    return model, result


def weights(model):
    return {name: param.detach().clone() for name, param in model.named_parameters()}


def assert_same_bits(one, other):
    assert one.keys() == other.keys()
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert not different, f"these differ: {different}"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_training_learns_a_fixed_batch(folder, dtype):
    settings = tiny_settings(steps=60, dtype=dtype, microbatch_tokens=32)
    fixed = FixedBatches([source_for(settings).batch(0)])
    model = tiny_model()
    result = train(model, LanguageModelling(), fixed, settings, folder)
    assert result.losses[-1] < 0.3 * result.losses[0]
    assert all(param.dtype == torch.float32 for param in model.parameters())
    assert result.tokens == 60 * 64


def test_the_history_has_a_line_for_every_step(folder):
    _, result = run(folder, tiny_settings(validate_every=3), validate=lambda model: {"validation_loss": 1.5})
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert [line["tokens"] for line in lines] == list(range(64, 513, 64))
    assert [line["step"] for line in lines if "validation_loss" in line["metrics"]] == [3, 6]
    assert [line["loss"] for line in lines] == result.losses
    assert result.metrics["validation_loss"] == 1.5


def test_microbatches_do_not_change_the_run(folder):
    whole, _ = run(folder / "a", tiny_settings())
    parts, _ = run(folder / "b", tiny_settings(microbatch_tokens=16))
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-4)  # AdamW's first steps magnify rounding


def test_one_step_equals_a_plain_loop():
    eps = 1e-4  # the usual 1e-8 makes whole steps out of gradients that are nothing but rounding
    settings = tiny_settings(grad_clip=0.05, eps=eps)
    ours, plain = tiny_model(), tiny_model()
    batch = source_for(settings).batch(0)[0]
    optimiser = Optimiser(ours, settings)
    terms = LanguageModelling().terms(ours, batch)
    terms.total.backward()
    norm = optimiser.mean_and_clip(float(terms.count))
    optimiser.step(3e-3)
    decayed = [p for p in plain.parameters() if p.ndim >= 2]
    gains = [p for p in plain.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": gains, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=3e-3, betas=(0.9, 0.95), eps=eps)
    terms = LanguageModelling().terms(plain, batch)
    (terms.total / terms.count).backward()
    assert norm == pytest.approx(float(torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.05)), rel=1e-5)
    adamw.step()
    for one, other in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_weight_decay_is_a_tenth_of_the_rate_of_the_step():
    model = tiny_model()
    optimiser = Optimiser(model, tiny_settings())
    before = weights(model)
    for param in model.parameters():
        param.grad = torch.zeros_like(param)
    optimiser.step(0.01)
    for name, param in model.named_parameters():
        torch.testing.assert_close(param.detach(), before[name] * (1 - 0.1 * 0.01 if param.ndim >= 2 else 1.0))


def test_the_final_model_is_the_mean_of_the_annealing_steps(folder):
    settings = tiny_settings(anneal_steps=4, average_every=2)
    seen = []
    model = tiny_model()

    class Watch(Notes):
        def update(self, done, total, unit, facts=None):
            if done in (6, 8):  # the 2nd and 4th annealing step
                seen.append(weights(model))

    run(folder, settings, Watch(), model)
    for name, param in model.named_parameters():
        torch.testing.assert_close(param.detach(), (seen[0][name] + seen[1][name]) / 2)


def test_without_averaging_the_last_weights_stay(folder):
    model = tiny_model()
    last = {}

    class Watch(Notes):
        def update(self, done, total, unit, facts=None):
            last.update(weights(model))

    run(folder, tiny_settings(anneal_steps=4, average_every=0), Watch(), model)
    assert_same_bits(weights(model), last)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("stop", [3, 4, 6, 7])
def test_a_resumed_run_ends_in_the_same_bits(folder, dtype, stop):
    settings = tiny_settings(anneal_steps=3, dtype=dtype, microbatch_tokens=32)
    straight, whole = run(folder / "a", settings)
    saving = tiny_settings(anneal_steps=3, dtype=dtype, microbatch_tokens=32, checkpoint_every_steps=2)
    with pytest.raises(Stopped):
        run(folder / "b", saving, Notes(stop_after=stop))
    notes = Notes()
    resumed, result = run(folder / "b", saving, notes, model=tiny_model(seed=9))
    kept = (stop - 1) // 2 * 2  # the stop comes before the checkpoint of its own step
    assert notes.notes == [f"going on from checkpoint step-{kept}"]
    assert_same_bits(weights(straight), weights(resumed))
    assert result.losses == whole.losses
    assert [record.step for record in result.history] == list(range(1, 9))


def test_checkpoints_by_the_clock_change_nothing(folder):
    straight, _ = run(folder / "a", tiny_settings())
    often, _ = run(folder / "b", tiny_settings(checkpoint_every_seconds=1e-9, keep=3))
    assert_same_bits(weights(straight), weights(often))
    kept = sorted(path.name for path in (folder / "b/checkpoints").iterdir())
    assert kept == ["step-6", "step-7", "step-8"]


def interrupted(folder, stop=7):
    """A folder with checkpoints of steps 2, 4, 6 of a run of 8."""
    settings = tiny_settings(checkpoint_every_steps=2, keep=3)
    with pytest.raises(Stopped):
        run(folder, settings, Notes(stop_after=stop))
    return settings


def cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("name", ["model.safetensors", "optimiser.safetensors", "state.json"])
@pytest.mark.parametrize("harm", [cut, os.remove])
def test_a_damaged_checkpoint_is_reported_and_the_one_before_is_used(folder, name, harm):
    settings = interrupted(folder)
    harm(folder / "checkpoints/step-6" / name)
    notes = Notes()
    model, _ = run(folder, settings, notes)
    assert "step-6 cannot be used" in notes.notes[0]
    assert notes.notes[1] == "going on from checkpoint step-4"
    assert_same_bits(weights(model), weights(run(folder.parent / "straight", tiny_settings())[0]))


def test_one_flipped_bit_is_damage(folder):
    interrupted(folder)
    flip(folder / "checkpoints/step-6/model.safetensors")
    notes = Notes()
    found = Checkpoints(folder / "checkpoints", 2).newest(notes)
    assert found is not None
    assert found.step == 4
    assert "model.safetensors is damaged" in notes.notes[0]


def test_when_every_checkpoint_is_damaged_the_run_stops(folder):
    settings = interrupted(folder)
    for path in (folder / "checkpoints").glob("step-*/model.safetensors"):
        cut(path)
    with pytest.raises(ArtifactError, match=r"step-6 cannot be used.*step-2 cannot be used"):
        run(folder, settings)


def test_checkpoints_of_another_run_are_refused(folder):
    interrupted(folder)
    with pytest.raises(SettingError, match="peak_lr"):
        run(folder, tiny_settings(peak_lr=1e-3))
    with pytest.raises(ArtifactError, match="another shape"):
        run(folder, tiny_settings(), model=tiny_model(n_layers=3))


def test_a_full_disk_leaves_the_checkpoints_before_and_the_run_goes_on_later(folder, monkeypatch):
    settings = tiny_settings(checkpoint_every_steps=2, keep=3)
    real_fsync, calls = os.fsync, []

    def full(number):
        calls.append(number)
        if len(calls) == 12:  # within the third checkpoint
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real_fsync(number)

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        run(folder, settings)
    monkeypatch.undo()
    left = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert left
    assert left == [f"step-{2 * (n + 1)}" for n in range(len(left))]
    assert len(left) < 4
    model, _ = run(folder, settings)
    assert_same_bits(weights(model), weights(run(folder.parent / "straight", tiny_settings())[0]))


def test_ctrl_c_keeps_a_checkpoint_and_stops_cleanly(folder):
    class CtrlC(Notes):
        def update(self, done, total, unit, facts=None):
            if done == 3:
                os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(folder, tiny_settings(), CtrlC())
    assert signal.getsignal(signal.SIGINT) is before
    assert (folder / "checkpoints/step-3/state.json").exists()
    resumed, _ = run(folder, tiny_settings(), model=tiny_model(5))
    assert_same_bits(weights(resumed), weights(run(folder.parent / "straight", tiny_settings())[0]))


def test_a_second_ctrl_c_stops_at_once(folder):
    class Twice(Notes):
        def update(self, done, total, unit, facts=None):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(folder, tiny_settings(), Twice())
    assert not (folder / "checkpoints").exists()


def test_training_works_outside_the_main_thread(folder):
    found = []
    thread = threading.Thread(target=lambda: found.append(run(folder, tiny_settings())[1].tokens))
    thread.start()
    thread.join()
    assert found == [8 * 64]


class Poisoned:
    """A language modelling whose loss turns bad at one call."""

    name, unit = "language_modelling", "tokens"

    def __init__(self, at: int, factor: float) -> None:
        self.calls, self.at, self.factor = 0, at, factor

    def terms(self, model, batch):
        self.calls += 1
        terms = LanguageModelling().terms(model, batch)
        return LossTerms(terms.total * (self.factor if self.calls == self.at else 1.0), terms.count)


@pytest.mark.parametrize(("factor", "said"), [(float("nan"), "the loss is nan"), (50.0, "the loss jumped")])
def test_a_bad_loss_stops_the_run_with_its_batch_saved_and_the_weights_whole(folder, factor, said):
    from safetensors.torch import load_file

    settings = tiny_settings(spike_window=3)
    model = tiny_model()
    with pytest.raises(TrainingError, match=said) as caught:
        train(model, Poisoned(6, factor), source_for(settings), settings, folder)
    path = folder / "failed-batch-step6.safetensors"
    assert caught.value.where == str(path)
    assert torch.equal(load_file(path)["0.tokens_BT"], source_for(settings).batch(5)[0].tokens_BT)
    assert all(torch.isfinite(param).all() for param in model.parameters())


def test_a_gradient_that_is_not_finite_stops_the_run():
    assert "gradient norm is inf" in Guard(tiny_settings()).trouble(1, 2.0, float("inf"))


def test_small_losses_may_be_noisy_and_warm_up_is_not_watched():
    settings = tiny_settings(spike_window=2, warmup_steps=5)
    guard = Guard(settings, [0.01, 0.01])
    assert guard.trouble(9, 0.9, 1.0) == ""
    assert guard.trouble(9, 1.1, 1.0) != ""
    assert guard.trouble(5, 1.1, 1.0) == ""


def test_a_batch_without_trained_tokens_is_the_users_mistake(folder):
    zeros = torch.zeros(2, 16, dtype=torch.int64)
    batch = Batch(zeros, zeros, torch.zeros(2, 16), None, zeros)
    with pytest.raises(InputError, match="nothing to learn in step 1"):
        train(tiny_model(), LanguageModelling(), FixedBatches([[batch]]), tiny_settings(), folder)


CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch
from train_models import tiny_model, tiny_settings, random_documents
from herd.train.loop import train
from herd.train.objectives.language_modelling import LanguageModelling
from herd.train.sources import Batches, TokenStream
from safetensors.torch import save_file
torch.set_num_threads(1)
settings = tiny_settings(steps=150, anneal_steps=40, checkpoint_every_steps=5)
source = Batches(TokenStream(random_documents(30), 16, 0), settings)
model = tiny_model()
print("ready", flush=True)
class Tell:
    def update(self, done, total, unit, facts=None): print(int(done), flush=True)
    def note(self, text): pass
train(model, LanguageModelling(), source, settings, Path(sys.argv[1]), Tell())
save_file({{n: p.detach() for n, p in model.named_parameters()}}, sys.argv[2])
"""


@pytest.mark.slow
def test_kill_9_at_any_moment_loses_nothing(tmp_path):
    from safetensors.torch import load_file

    script = CHILD.format(tests=str(Path(__file__).parent))
    child = [sys.executable, "-c", script]
    subprocess.run([*child, tmp_path / "a", tmp_path / "a.safetensors"], check=True, stdout=subprocess.DEVNULL)
    for stop in (3, 23, 70, 128):
        with subprocess.Popen(
            [*child, tmp_path / "b", tmp_path / "b.safetensors"], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.strip().isdigit() and int(line) >= stop:
                    process.kill()
                    break
        assert not (tmp_path / "b.safetensors").exists()
    subprocess.run([*child, tmp_path / "b", tmp_path / "b.safetensors"], check=True, stdout=subprocess.DEVNULL)
    assert_same_bits(load_file(tmp_path / "a.safetensors"), load_file(tmp_path / "b.safetensors"))
