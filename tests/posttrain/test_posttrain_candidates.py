"""Drawing: k replies a prompt, the same after a kill at any moment as without one, never those of another policy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from posttrain_fakes import Scripted, bytes_tokenizer, sums

from herd.errors import FormatError, InputError, NoEffectError, SettingError
from herd.posttrain.candidates import draw, seed_of
from herd.posttrain.settings import DrawSettings
from herd.text.message import Message

SETTINGS = DrawSettings(k=3, max_tokens=40, prompts_per_batch=4)


def by_seed(prompt: str, seed: int) -> str:
    return f"It is {seed % 5}."


def test_every_prompt_gets_k_replies_in_order_with_seeds_of_their_own(tmp_path: Path) -> None:
    tasks = sums(10)
    drawn = draw(Scripted(by_seed), bytes_tokenizer(), tasks, SETTINGS, tmp_path)
    assert [one.task_id for one in drawn.all] == [task.id for task in tasks for _ in range(3)]
    assert [one.index for one in drawn.all] == [0, 1, 2] * 10
    assert {one.text for one in drawn.all} == {f"It is {n}." for n in range(5)}
    assert all(one.text == f"It is {seed_of(0, one.task_id, one.index) % 5}." for one in drawn.all)
    assert [len(group) for _, group in drawn.by_task()] == [3] * 10


@pytest.mark.parametrize("killed_after", [1, 11, 12, 13, 25])
def test_a_killed_draw_goes_on_and_ends_the_same(tmp_path: Path, killed_after: int) -> None:
    tasks = sums(10)
    whole = draw(Scripted(by_seed), bytes_tokenizer(), tasks, SETTINGS, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        draw(Scripted(by_seed, fail_after=killed_after), bytes_tokenizer(), tasks, SETTINGS, tmp_path / "cut")
    again = Scripted(by_seed)
    assert draw(again, bytes_tokenizer(), tasks, SETTINGS, tmp_path / "cut") == whole
    assert again.requests == 30 - killed_after // 12 * 12
    files = [next((tmp_path / name).iterdir()).read_bytes() for name in ("whole", "cut")]
    assert files[0] == files[1]


def test_a_line_cut_by_the_kill_is_drawn_again(tmp_path: Path) -> None:
    tasks = sums(10)
    whole = draw(Scripted(by_seed), bytes_tokenizer(), tasks, SETTINGS, tmp_path)
    (path,) = tmp_path.iterdir()
    text = path.read_bytes()
    for cut in (1, len(text) // 3, len(text) - 1):
        path.unlink()
        path.with_name(path.name.replace(".jsonl", ".part.jsonl")).write_bytes(text[:cut])
        assert draw(Scripted(by_seed), bytes_tokenizer(), tasks, SETTINGS, tmp_path) == whole
        assert path.read_bytes() == text


def test_a_finished_draw_is_not_done_again_and_another_policy_s_is_not_used(tmp_path: Path) -> None:
    generator = Scripted(by_seed)
    for policy, expected in (("a", 30), ("a", 30), ("b", 60)):
        draw(generator, bytes_tokenizer(), sums(10), SETTINGS, tmp_path, policy=policy)
        assert generator.requests == expected
    draw(generator, bytes_tokenizer(), sums(10), replace(SETTINGS, temperature=0.6), tmp_path, policy="b")
    assert generator.requests == 90


def test_a_shortened_file_is_refused(tmp_path: Path) -> None:
    draw(Scripted(by_seed), bytes_tokenizer(), sums(4), SETTINGS, tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(FormatError, match="groups of 3"):
        draw(Scripted(by_seed), bytes_tokenizer(), sums(4), SETTINGS, tmp_path)


def test_replies_that_never_end_are_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NoEffectError, match="max_tokens"):
        draw(Scripted(lambda prompt, seed: "x" * 99), bytes_tokenizer(), sums(2), SETTINGS, tmp_path)


def test_unusable_prompts_are_refused(tmp_path: Path) -> None:
    two = sums(1) * 2
    answered = [replace(two[0], messages=(*two[0].messages, Message("assistant", "3")))]
    for tasks, word in (([], "no prompts"), (two, "twice"), (answered, "assistant's turn")):
        with pytest.raises(InputError, match=word):
            draw(Scripted(by_seed), bytes_tokenizer(), tasks, SETTINGS, tmp_path)


@pytest.mark.parametrize("changes", [{"k": 1}, {"temperature": 0.0}, {"top_p": 0.0}, {"max_tokens": 0}])
def test_settings_that_cannot_work_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(SettingError):
        DrawSettings(**changes)  # type: ignore[arg-type]
