"""Running a suite: prompts, seeds, verdicts and the scores that follow."""

from __future__ import annotations

import json

import pytest
from evaluate_herd import TASKS, Parrot, result, task, tokenizer

from herd.errors import InputError
from herd.evaluate.compare import compare
from herd.evaluate.statistics import wilson
from herd.evaluate.suite import Suite, run_suite
from herd.generate.protocol import Completion, Sampling
from herd.paddock.settings import CAPABILITIES, WorldSettings
from herd.paddock.task import Verdict
from herd.paddock.tasks import tasks as draw_tasks
from herd.paddock.world import make_world
from herd.text.chat import encode_content, encode_prompt

TOKENIZER = tokenizer()
REPLIES = {"France?": "It is Paris.", "Peru?": "Quito", "ฝรั่งเศส": "ปารีส"}


def test_replies_are_verified_and_kept() -> None:
    found = run_suite(Parrot(TOKENIZER, REPLIES), TOKENIZER, Suite("paddock", "1", TASKS))
    assert [item.ok for item in found.items] == [True, False, True, False]
    first, second, thai, last = found.items
    assert (first.reply, first.finish, first.mean_logprob) == ("It is Paris.", "stop", -0.5)
    assert second.reason == "the answer is not in the reply"
    assert (thai.reply, thai.target) == ("ปารีส", "ปารีส")
    assert (last.finish, last.n_tokens) == ("length", 256)
    assert first.prompt == TOKENIZER.decode(encode_prompt(TOKENIZER, TASKS[0].messages))
    assert first.prompt.count("<|begin_of_text|>") == 1


def test_scores_by_capability_language_and_cell() -> None:
    found = run_suite(Parrot(TOKENIZER, REPLIES), TOKENIZER, TASKS)
    assert found.by_capability() == {"knowledge": wilson(2, 3), "math": wilson(0, 1)}
    assert found.by_language() == {"en": wilson(1, 3), "th": wilson(1, 1)}
    assert found.by_cell()["knowledge", "en"] == wilson(1, 2)
    assert ("math", "th") not in found.by_cell()
    assert found.average.value == pytest.approx((2 / 3 + 0) / 2)
    assert found.reasons() == {"the answer is not in the reply": 2}
    assert found.reasons("math") == {"the answer is not in the reply": 1}
    assert json.loads(json.dumps(found.summary()))["counts"] == {"knowledge": 3, "math": 1}


def test_greedy_by_default_and_stop_ids_of_the_tokenizer() -> None:
    parrot = Parrot(TOKENIZER, REPLIES)
    run_suite(parrot, TOKENIZER, TASKS)
    for request in parrot.seen:
        assert request.sampling.temperature == 0.0
        assert request.sampling.stop_ids == TOKENIZER.stop_ids


def test_a_tasks_seed_does_not_depend_on_its_neighbours() -> None:
    both, one = Parrot(TOKENIZER, {}), Parrot(TOKENIZER, {})
    warm = Sampling(temperature=0.7, seed=5)
    run_suite(both, TOKENIZER, TASKS, warm)
    run_suite(one, TOKENIZER, TASKS[2:], warm)
    assert [r.sampling.seed for r in both.seen[2:]] == [r.sampling.seed for r in one.seen]
    assert len({r.sampling.seed for r in both.seen}) == len(TASKS)


def test_another_verifier_can_judge() -> None:
    strict = run_suite(
        Parrot(TOKENIZER, REPLIES), TOKENIZER, TASKS, verifier=lambda task, reply: Verdict(False, task.lang)
    )
    assert strict.average.value == 0.0
    assert strict.reasons() == {"en": 3, "th": 1}


def test_tool_calls_are_parsed_and_verified() -> None:
    """Every capability of the paddock, answered with its own reference: all must be right."""
    world = make_world(WorldSettings())
    drawn = draw_tasks(world, "held_out", 2, "test")

    class Oracle:
        def generate(self, requests, progress=None):  # type: ignore[no-untyped-def]
            tokens = [(*encode_content(TOKENIZER, t.answer), TOKENIZER.eot) for t in drawn]
            return [Completion(ids, (-0.1,) * len(ids), "stop") for ids in tokens]

    found = run_suite(Oracle(), TOKENIZER, Suite("paddock", "1", tuple(drawn)))
    assert [(item.id, item.reason) for item in found.items if not item.ok] == []
    assert tuple(found.by_capability()) == CAPABILITIES


def test_bad_suites_are_refused() -> None:
    with pytest.raises(InputError, match="without tasks"):
        Suite("paddock", "1", ())
    with pytest.raises(InputError, match="twice"):
        Suite("paddock", "1", (*TASKS, TASKS[0]))
    with pytest.raises(InputError, match="file's name"):
        Suite("../up", "1", TASKS)


def test_a_generator_that_loses_requests_is_refused() -> None:
    class Lazy:
        def generate(self, requests, progress=None):  # type: ignore[no-untyped-def]
            return []

    with pytest.raises(InputError, match="0 of 4"):
        run_suite(Lazy(), TOKENIZER, TASKS)


def test_the_fingerprint_follows_the_tasks() -> None:
    changed = (*TASKS[:3], task("m-en-1", "math", "en", "1 + 1?", "3"))
    prints = {Suite("s", "1", tasks).fingerprint for tasks in (TASKS, TASKS[::-1], changed)}
    assert len(prints) == 3
    assert Suite("other", "2", TASKS).fingerprint == Suite("s", "1", TASKS).fingerprint


def names(capability: str, lang: str, count: int) -> list[str]:
    return [f"{capability}-{lang}-{i}" for i in range(count)]


def test_comparison_is_paired_and_by_group() -> None:
    math, code = names("math", "en", 40), names("code", "de", 40)
    weak = result({name: i % 2 == 0 for i, name in enumerate(math)} | dict.fromkeys(code, True))
    strong = result(dict.fromkeys(math, True) | {name: i > 0 for i, name in enumerate(code)})
    found = compare(weak, strong)
    assert found["overall"]["difference"]["value"] == pytest.approx((0.5 - 1 / 40) / 2)
    assert found["overall"]["apart"] is True
    assert (found["overall"]["won"], found["overall"]["lost"]) == (20, 1)
    assert found["by_capability"]["math"]["difference"]["low"] > 0.3
    assert found["by_capability"]["math"]["p"] == pytest.approx(2 / 2**20)
    assert found["by_capability"]["math"]["p_holm"] == pytest.approx(4 / 2**20)
    assert found["by_capability"]["code"]["p"] == 1.0
    assert list(found["by_language"]) == ["en", "de"]
    json.dumps(found)


def test_comparison_does_not_mind_the_order() -> None:
    right = {name: i % 3 == 0 for i, name in enumerate(names("math", "en", 9))}
    same = compare(result(right), result(dict(reversed(right.items()))))
    assert same["overall"]["difference"]["value"] == 0
    assert (same["overall"]["won"], same["overall"]["lost"]) == (0, 0)


def test_other_items_or_prompts_are_refused() -> None:
    ours = result(dict.fromkeys(names("math", "en", 4), True))
    with pytest.raises(InputError, match="1 only in the first, 0 only in") as caught:
        compare(ours, result(dict.fromkeys(names("math", "en", 3), True)))
    assert "math-en-3" in caught.value.message
    other = result(dict.fromkeys(names("math", "en", 4), True))
    object.__setattr__(other.items[2], "prompt", "asked differently")
    with pytest.raises(InputError, match="asked differently"):
        compare(ours, other)
