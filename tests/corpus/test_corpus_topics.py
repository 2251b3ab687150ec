"""Topics of which a corpus has too much."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from herd.corpus.quality.classifier import ClassifierSettings, train
from herd.corpus.quality.topics import TopicShares, kept_shares
from herd.corpus.records import Document
from herd.errors import SettingError

COUNTS = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 1000), min_size=2)


@given(COUNTS, st.dictionaries(st.sampled_from("abcdef"), st.just(0.0) | st.floats(0.001, 0.45), max_size=2))
def test_no_topic_is_more_than_its_limit_of_what_is_left_and_nothing_goes_for_nothing(
    tokens: dict[str, int], most: dict[str, float]
) -> None:
    most = {topic: limit for topic, limit in most.items() if topic in tokens}
    assume(sum(count for topic, count in tokens.items() if topic not in most) > 0)
    kept = kept_shares(tokens, most)
    left = {topic: tokens[topic] * kept[topic] for topic in tokens}
    total = sum(left.values())
    for topic, share in kept.items():
        assert 0 <= share <= 1
        assert topic in most or share == 1
        if topic in most:
            assert left[topic] <= most[topic] * total * (1 + 1e-9)
            if share < 1:  # it goes down to its limit, not below
                assert left[topic] == pytest.approx(most[topic] * total)


def test_a_limit_that_others_push_over_counts_too() -> None:
    kept = kept_shares({"arts": 600, "sport": 250, "science": 150}, {"arts": 0.3, "sport": 0.3})
    assert kept["science"] == 1
    assert 600 * kept["arts"] == pytest.approx(250 * kept["sport"]) == pytest.approx(0.3 / 0.4 * 150)


def test_limits_that_nothing_can_hold_are_refused() -> None:
    with pytest.raises(SettingError, match="leave nothing"):
        kept_shares({"a": 10, "b": 10}, {"a": 0.4, "b": 0.4})
    for wrong in ({"c": 0.1}, {"a": 1.5}, {"a": -0.1}):
        with pytest.raises(SettingError, match="shares from 0 to 1"):
            kept_shares({"a": 10, "b": 10}, wrong)


def test_the_step_keeps_the_share_by_ids_alone() -> None:
    texts = {"arts": "film song actor stage music", "science": "atom proof energy lemma cell"}
    documents = [
        Document(f"{topic}{k}", f"{words} {k}", "en", "web") for topic, words in texts.items() for k in range(400)
    ]
    classifier, _ = train(
        [one.text for one in documents], [one.id.rstrip("0123456789") for one in documents], ClassifierSettings(bits=12)
    )
    step = TopicShares(classifier, {"arts": 0.25, "science": 1.0})
    verdicts = {one.id: step.judge(one) for one in documents}
    kept = Counter(name.rstrip("0123456789") for name, verdict in verdicts.items() if verdict.keep)
    assert kept["science"] == 400
    assert 70 <= kept["arts"] <= 130  # of 400 at a quarter: 100, deviation 8.7
    assert all(step.judge(one).keep == verdicts[one.id].keep for one in reversed(documents[::7]))
    gone = next(verdict for verdict in verdicts.values() if not verdict.keep)
    assert (gone.reason, gone.detail) == ("over_represented", "arts, of which 25% stays")
