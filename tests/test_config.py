"""Settings: what is written is read back, and what cannot be right is refused where it stands."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from herd.config import fingerprint, from_plain, load, need, override, save, to_plain
from herd.errors import ArtifactError, FormatError, SettingError
from herd.recipe import SMALLEST_VOCABULARY, Recipe
from herd.recipes import RECIPES, find
from herd.text.tokenizer import MIN_VOCAB


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    kind: Literal["a", "b"] = "a"

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise SettingError("rate is negative", mend="use 0 or more")


@dataclass(frozen=True)
class Outer:
    steps: int
    name: str = ""
    on: bool = False
    limit: int | None = None
    inner: Inner = field(default_factory=Inner)
    maybe: Inner | None = None
    parts: tuple[Inner, ...] = ()
    weights: Mapping[str, float] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    level: Literal[1, 2] = 1


rates = st.floats(0, 1e9)
inners = st.builds(Inner, rate=rates, kind=st.sampled_from(["a", "b"]))
outers = st.builds(
    Outer,
    steps=st.integers(-(2**63) + 1, 2**63 - 1),
    name=st.text(),
    on=st.booleans(),
    limit=st.none() | st.integers(-(2**63) + 1, 2**63 - 1),
    inner=inners,
    maybe=st.none() | inners,
    parts=st.lists(inners, max_size=3).map(tuple),
    weights=st.dictionaries(st.text(), rates, max_size=3),
    names=st.lists(st.text(), max_size=3).map(tuple),
    level=st.sampled_from([1, 2]),
)


def leaves(plain: Any, path: str = "") -> list[tuple[str, Any]]:
    """(dotted path, value) of every scalar below a plain value."""
    items = plain.items() if isinstance(plain, dict) else enumerate(plain) if isinstance(plain, list) else None
    if items is None:
        return [(path, plain)]
    return [leaf for name, value in items for leaf in leaves(value, f"{path}.{name}" if path else str(name))]


@given(outers)
def test_a_value_survives_json(value: Outer) -> None:
    again = from_plain(Outer, json.loads(json.dumps(to_plain(value))))
    assert again == value
    assert fingerprint(again) == fingerprint(value)


@given(outers, outers)
def test_equal_values_and_only_these_have_equal_fingerprints(one: Outer, other: Outer) -> None:
    assert (fingerprint(one) == fingerprint(other)) == (to_plain(one) == to_plain(other))


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(name=st.sampled_from(sorted(RECIPES)), draw=st.data())
def test_a_changed_recipe_survives_json(name: str, draw: st.DataObject) -> None:
    """Any seed, any learning rate or text of any recipe, set from the command line."""
    recipe = find(name)
    kinds = {"seed": st.integers(0, 9999), "peak_lr": st.floats(1e-6, 1), "about": st.text()}
    kinds["name"] = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}", fullmatch=True)
    paths = [path for path, _ in leaves(to_plain(recipe)) if path.rpartition(".")[2] in kinds]
    for path in draw.draw(st.lists(st.sampled_from(paths), min_size=1, max_size=4)):
        wanted = draw.draw(kinds[path.rpartition(".")[2]])
        recipe = override(recipe, [f"{path}={json.dumps(wanted)}"])
        assert dict(leaves(to_plain(recipe)))[path] == wanted
    assert from_plain(Recipe, json.loads(json.dumps(to_plain(recipe)))) == recipe


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_leaf_of_a_recipe_can_be_set_to_what_it_is(name: str) -> None:
    recipe = find(name)
    assignments = [f"{path}={json.dumps(value)}" for path, value in leaves(to_plain(recipe)) if path]
    assert len(assignments) > 60
    assert override(recipe, assignments) == recipe


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(SettingError, match="'stesp' is not an option of Outer") as caught:
        from_plain(Outer, {"stesp": 3})
    assert "'steps'" in caught.value.mend
    assert caught.value.where == "Outer.stesp"
    with pytest.raises(SettingError) as caught:
        override(Outer(1), ["inner.raet=1"])
    assert (caught.value.where, caught.value.mend) == ("inner.raet", "did you mean 'rate'?")
    with pytest.raises(SettingError, match=r"'c' is not a choice of inner\.kind"):
        override(Outer(1), ["inner.kind=c"])
    with pytest.raises(SettingError, match="needs: steps"):
        from_plain(Outer, {})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 1.5),
        ("steps", 2.0),
        ("steps", "3"),
        ("steps", True),
        ("steps", None),
        ("on", 1),
        ("on", "true"),
        ("name", 5),
        ("limit", 2.5),
        ("limit", False),
        ("inner", 3),
        ("inner", {"rate": True}),
        ("inner", {"rate": "0.5"}),
        ("inner", {"rate": float("nan")}),
        ("inner", {"rate": float("inf")}),
        ("maybe", {"kind": "z"}),
        ("parts", {"rate": 1.0}),
        ("parts", [{"rate": 1.0}, 4]),
        ("weights", [1.0]),
        ("weights", {"x": "y"}),
        ("names", "abc"),
        ("level", True),
        ("level", 3),
    ],
)
def test_ill_typed_values_are_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(SettingError) as caught:
        from_plain(Outer, {"steps": 1, name: value})
    assert name in str(caught.value)


def test_a_whole_number_is_a_number_and_nothing_else_is_turned() -> None:
    read = from_plain(Inner, {"rate": 2})
    assert read == Inner(rate=2.0)
    assert type(read.rate) is float


def test_a_union_takes_each_of_its_members_and_tells_the_useful_error() -> None:
    assert from_plain(Outer, {"steps": 1, "maybe": None}).maybe is None
    assert from_plain(Outer, {"steps": 1, "maybe": {"rate": 1}}).maybe == Inner(1.0)
    with pytest.raises(SettingError, match=r"Outer\.maybe\.rate must be a number"):
        from_plain(Outer, {"steps": 1, "maybe": {"rate": "x"}})


def test_a_class_that_checks_itself_gets_the_place_added() -> None:
    with pytest.raises(SettingError) as caught:
        from_plain(Outer, {"steps": 1, "parts": [{}, {"rate": -1}]})
    assert (caught.value.where, caught.value.mend) == ("Outer.parts.1", "use 0 or more")
    with pytest.raises(SettingError, match="negative") as caught:
        override(Outer(1), ["inner.rate=-1"])
    assert caught.value.where == "inner.rate"


def test_overrides_reach_into_lists_and_tables() -> None:
    value = Outer(1, parts=(Inner(), Inner()), weights={"x": 1.0}, names=("a", "b"))
    assert override(value, ["parts.1.rate=3"]).parts == (Inner(), Inner(3.0))
    assert override(value, ['parts.0={"kind": "b"}']).parts == (Inner(kind="b"), Inner())
    assert override(value, ["names.1=z"]).names == ("a", "z")
    assert override(value, ["weights.x=2", "weights.y=1"]).weights == {"x": 2.0, "y": 1.0}
    assert override(value, ["parts=[]"]).parts == ()
    assert override(value, ["name=2024"]).name == "2024"
    assert override(value, ["name=a=b", "on=true", "limit=7"]) == replace(value, name="a=b", on=True, limit=7)
    assert override(value, ["limit=null"]).limit is None


@pytest.mark.parametrize(
    "assignment",
    [
        *("steps", "=3", "steps.more=3", "parts.2.rate=1", "parts.x.rate=1", "parts.-1.rate=1", "maybe.rate=1"),
        *("weights.x=word", "names.0.q=1", "steps=", "steps=NaN", "inner.rate=NaN", "inner.rate=1e999", "on=yes"),
        "steps=" + "[" * 100_000,
    ],
)
def test_assignments_that_cannot_be_are_refused(assignment: str) -> None:
    with pytest.raises(SettingError):
        override(Outer(1, parts=(Inner(), Inner()), names=("a",)), [assignment])


@dataclass(frozen=True)
class Span:
    low: int = 1
    high: int = 2

    def __post_init__(self) -> None:
        need(self, "high", self.high > self.low, f"above low ({self.low})")


@dataclass(frozen=True)
class Spans:
    one: Span = Span()
    many: tuple[Span, ...] = (Span(), Span())
    named: Mapping[str, Span] = field(default_factory=lambda: {"x": Span()})


@pytest.mark.parametrize("place", ["one", "many.1", "named.x"])
def test_assignments_are_checked_together_after_the_last_one(place: str) -> None:
    up = [f"{place}.low=5", f"{place}.high=9"]
    assert override(Spans(), up) == override(Spans(), up[::-1])
    assert to_plain(override(Spans(), up))["one"] == ({"low": 5, "high": 9} if place == "one" else to_plain(Span()))
    with pytest.raises(SettingError, match=r"high is 4 and should be above low \(5\)") as caught:
        override(Spans(), [f"{place}.low=5", f"{place}.high=4"])
    assert caught.value.where == f"{place}.low, {place}.high"
    again = [f"{place}.low=5", f"{place}.low=0"]  # the last word counts
    assert override(Spans(), again) == override(Spans(), again[1:])
    assert override(Spans(), [*up, "one={}", "many=[]", "named={}"]) == Spans(many=(), named={})


@pytest.mark.parametrize("number", [2**63, -(2**63), 10**400])
def test_a_number_beyond_64_bits_is_refused(number: int) -> None:
    for name in ("low", "high"):
        with pytest.raises(SettingError, match=f"Span.{name} is larger than 64 bits hold"):
            from_plain(Span, {name: number})
    with pytest.raises(SettingError, match="rate is larger"):
        from_plain(Inner, {"rate": number})


def test_the_old_value_is_never_changed() -> None:
    value = Outer(1, weights={"x": 1.0})
    override(value, ["weights.x=5", "steps=9"])
    assert value == Outer(1, weights={"x": 1.0})


def test_files(tmp_path: Path) -> None:
    save(tmp_path / "a.json", Outer(4, name="ß", parts=(Inner(),)))
    assert load(tmp_path / "a.json", Outer) == Outer(4, name="ß", parts=(Inner(),))
    with pytest.raises(ArtifactError, match="missing"):
        load(tmp_path / "none.json", Outer)
    with pytest.raises(ArtifactError, match="directory"):
        load(tmp_path, Outer)
    (tmp_path / "b.json").write_text('\ufeff{"steps": 3}', encoding="utf-8")  # as some editors save it
    assert load(tmp_path / "b.json", Outer).steps == 3
    for text in ("{", "[" * 100_000):
        (tmp_path / "b.json").write_text(text, encoding="utf-8")
        with pytest.raises(FormatError, match="not valid JSON"):
            load(tmp_path / "b.json", Outer)
    (tmp_path / "c.json").write_text("[1]")
    with pytest.raises(SettingError, match="must be the settings of Outer"):
        load(tmp_path / "c.json", Outer)


def test_what_json_cannot_hold_is_refused() -> None:
    with pytest.raises(SettingError, match="cannot hold a set"):
        to_plain({"x": {1}})


def test_the_smallest_vocabulary_of_a_recipe_is_the_tokenizers() -> None:
    assert SMALLEST_VOCABULARY == MIN_VOCAB
