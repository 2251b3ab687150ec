"""`herd quantize --check`: what is measured on which text, what is written where, what is refused."""

import json

import pytest
import torch

from herd.cli import main
from herd.commands import quality
from herd.errors import ArtifactError, InputError, SettingError
from herd.files import write_jsonl
from herd.llama.config import LlamaConfig
from herd.llama.init import init_weights
from herd.llama.model import Llama
from herd.paddock.task import Check, Task, task_to_dict
from herd.text import Message, Tokenizer
from herd.train.objectives.reward import RewardModel
from herd.train.reward_files import save_reward
from herd.weights.hf import save_model

TOKENIZER = Tokenizer.train(["after before letter a b c one two three "] * 20, 560)
SHAPE = LlamaConfig(TOKENIZER.vocab_size, 32, 3, 4, 2, 64, max_seq_len=256, rope_scaling=None)
SECRET = "after one letter before two"


def drawn(seed=1):
    model = Llama(SHAPE)
    init_weights(model, seed, 0.1)
    return model.eval()


@pytest.fixture
def folder(tmp_path):
    save_model(tmp_path / "bf16", drawn(), SHAPE, tokenizer=TOKENIZER, herd={})
    return tmp_path / "bf16"


def run(*words):
    return main(["quantize", *map(str, words)])


def tasks(count=6):
    return [
        Task(f"t{n}", "math" if n % 2 else "code", "en", (Message("user", f"{n} after"),), Message("assistant", "a"),
             Check("contains", {"expected": "a"}), "held_out")
        for n in range(count)
    ]  # fmt: skip


def test_figures_stand_in_herd_json_and_texts_only_where_release_leaves_them(tmp_path, folder, capsys):
    text = tmp_path / "my notes.txt"
    text.write_text(f"{SECRET}\n" * 200)
    assert run(folder, tmp_path / "fp8", "--policy", "all", "--check", text, "--tokens", 300) == 0
    said = capsys.readouterr()
    assert "same top token" in said.out
    assert "my notes.txt: the first 300 tokens" in said.err
    made = json.loads((tmp_path / "fp8" / "herd.json").read_text())["fp8"]
    assert made["report"]["policy"] == "all"
    assert made["quality"]["tokens"] == 298  # of two passages the first token has nothing before it
    assert 0 < made["quality"]["kl"]["median"] <= made["quality"]["kl"]["p99"] <= made["quality"]["kl"]["max"]
    for name in ("herd.json", "config.json"):
        content = (tmp_path / "fp8" / name).read_text()
        assert SECRET not in content
        assert "my notes" not in content
    parts = json.loads((tmp_path / "fp8" / quality.PARTS).read_text())
    assert len(parts["worst"]) == 20
    assert parts["worst"][0]["kl"] == pytest.approx(made["quality"]["kl"]["max"])
    page = (tmp_path / "fp8" / quality.PAGE).read_text()
    assert "The 20 tokens where FP8 differs most" in page
    assert main(["release", str(tmp_path / "fp8"), "me/m", "--dry-run", "--licence", "mit", "--llama", "none"]) == 0
    released = capsys.readouterr().out
    assert "the same likeliest token at" in released
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_folder_that_stands_is_measured_as_it_is(tmp_path, folder, capsys):
    assert run(folder, tmp_path / "fp8") == 0
    before = (tmp_path / "fp8" / "model.safetensors").read_bytes()
    assert run(folder, tmp_path / "fp8", "--check") == 0
    assert "is there already: it is measured as it is" in capsys.readouterr().err
    assert (tmp_path / "fp8" / "model.safetensors").read_bytes() == before
    quality_ = json.loads((tmp_path / "fp8" / "herd.json").read_text())["fp8"]["quality"]
    assert quality_["text"] == "herd's text in eight languages"
    assert run(folder, tmp_path / "fp8", "--check", "--policy", "all") == SettingError.exit_code
    assert "made by the policy paper, not by all" in capsys.readouterr().err
    assert run(folder, tmp_path / "fp8") == InputError.exit_code  # without --check nothing is replaced, as ever


def test_rows_of_texts_and_of_dialogues(tmp_path, folder, capsys):
    write_jsonl(tmp_path / "texts.jsonl", [{"text": SECRET}, {"text": "a b c"}])
    turns = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two three"}]
    write_jsonl(tmp_path / "talks.jsonl", [{"messages": turns}] * 3)
    found = []
    for name in ("texts", "talks"):
        assert run(folder, tmp_path / "fp8", "--check", tmp_path / f"{name}.jsonl") == 0
        found.append(json.loads((tmp_path / "fp8" / "herd.json").read_text())["fp8"]["quality"]["tokens"])
    answer = len(TOKENIZER.encode("two three")) + 1  # and the end of the turn
    assert found == [sum(len(TOKENIZER.encode(text)) for text in (SECRET, "a b c")), 3 * answer]
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\x00")
    assert run(folder, tmp_path / "fp8", "--check", tmp_path / "bad.txt") == InputError.exit_code
    assert "cannot be read as text" in capsys.readouterr().err


def test_a_model_of_a_run_reads_the_runs_own_dialogues(tmp_path, folder, capsys):
    write_jsonl(tmp_path / "world-0" / "dev.jsonl", [task_to_dict(one) for one in tasks()])
    assert run(folder, tmp_path / "fp8", "--check") == 0
    assert "held-out dialogues of the model's run" in capsys.readouterr().out


def test_suite_and_rewards(tmp_path, folder, capsys):
    write_jsonl(tmp_path / "tasks.jsonl", [task_to_dict(one) for one in tasks()])
    reward = RewardModel(drawn(3))
    torch.nn.init.normal_(reward.score.weight, generator=torch.Generator().manual_seed(0))
    save_reward(tmp_path / "reward", reward, pad=TOKENIZER.pad, tokenizer=TOKENIZER, herd={})
    asked = ("--suite", tmp_path / "tasks.jsonl", "--reward", tmp_path / "reward")
    assert run(folder, tmp_path / "fp8", "--policy", "all-linear", *asked) == 0
    said = capsys.readouterr().out
    assert "paired difference" in said
    assert "Kolmogorov-Smirnov D" in said
    made = json.loads((tmp_path / "fp8" / "herd.json").read_text())["fp8"]["quality"]
    assert made["suite"]["overall"]["n"] == 6
    assert set(made["suite"]["by_capability"]) == {"math", "code"}
    assert 0 <= made["shift"]["ks"] <= 1
    assert "rewards_bf16" not in made
    assert len(json.loads((tmp_path / "fp8" / quality.PARTS).read_text())["rewards_fp8"]) == 6
    page = (tmp_path / "fp8" / quality.PAGE).read_text()
    assert "Scores by capability" in page
    assert "Kolmogorov-Smirnov" in page


def test_a_killed_check_goes_on(tmp_path, folder, monkeypatch):
    write_jsonl(tmp_path / "tasks.jsonl", [task_to_dict(one) for one in tasks()])
    asked = (folder, tmp_path / "fp8", "--check", "--suite", tmp_path / "tasks.jsonl")
    scored, real = [], quality._scored

    def counted(work, name, *more):
        if name == "fp8" and not scored:
            scored.append("killed")
            raise KeyboardInterrupt
        return real(work, name, *more)

    monkeypatch.setattr(quality, "_scored", counted)
    assert run(*asked) == 130
    (scratch,) = (path for path in tmp_path.iterdir() if path.name.startswith(".fp8.quality-"))
    assert len(list((scratch / "suite-bf16").glob("results_*.json"))) == 1
    from herd.quantize import reading

    monkeypatch.setattr(reading.Group, "states", lambda *_: pytest.fail("read again"))
    assert run(*asked) == 0
    assert not scratch.exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--reward", "r"), SettingError.exit_code, "add --suite"),
        (("--check", "--tokens", "1"), SettingError.exit_code, "1 tokens are no text"),
        (("--check", "nowhere.txt"), InputError.exit_code, "cannot be read as text"),
        (("--check", "nowhere.jsonl"), ArtifactError.exit_code, "no dataset is here"),
        (("--suite", "nowhere.jsonl"), ArtifactError.exit_code, "missing"),
    ],
)
def test_refusals(tmp_path, folder, capsys, words, code, said):
    assert run(folder, tmp_path / "fp8", *words) == code
    assert said in capsys.readouterr().err


def test_two_that_are_not_one_model(tmp_path, folder, capsys):
    assert run(folder, tmp_path / "fp8") == 0
    other = LlamaConfig(TOKENIZER.vocab_size, 32, 4, 4, 2, 64, max_seq_len=256, rope_scaling=None)
    model = Llama(other)
    init_weights(model, 0)
    save_model(tmp_path / "other", model, other, tokenizer=TOKENIZER, herd={})
    for words, said in (
        ((tmp_path / "other", tmp_path / "fp8"), "their shapes differ"),
        ((tmp_path / "fp8", tmp_path / "fp8"), "is FP8 itself"),
        ((folder, tmp_path / "other"), "is no FP8 model"),
    ):
        assert run(*words, "--check") == InputError.exit_code
        assert said in capsys.readouterr().err
