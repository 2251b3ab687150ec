"""The summary stage's files: schema, red where a claim fails, sections from what stages left, odd and missing data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from summary_run import GOOD, Run, make_run, model, result

from herd.paddock.settings import CAPABILITIES, LANGUAGES
from herd.progress import Silent
from herd.report.claims import read_claims
from herd.report.data import AnnouncementLine, ReportData
from herd.report.page import render
from herd.road.settings import Summary
from herd.road.summary import run as summarise
from herd.road.summary.conversations import PER_CAPABILITY, chosen, turns
from herd.road.summary.folders import Folders
from herd.road.summary.stage import report_data
from herd.road.summary.training import MOST_POINTS, thinned
from herd.stages import Context

HOLDS, FAILS = 'class="sign holds"', 'class="sign fails"'


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("good"))


@pytest.fixture(scope="module")
def report(good: Run) -> ReportData:
    return report_of(good)


@pytest.fixture
def run(good: Run, tmp_path: Path) -> Run:
    return good.copy(tmp_path)


def report_of(run: Run) -> ReportData:
    return report_data(Folders("nano", run.paths), 0.05)


def lines(data: ReportData) -> dict[str, AnnouncementLine]:
    return {line.claim: line for line in data.announcement}


class Told(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_the_stage_writes_three_files_that_agree(run: Run, tmp_path: Path) -> None:
    run.change("corpus", "planted.json", lambda found: found["kinds"]["pii"].update(caught=20))
    out, told = tmp_path / "out", Told()
    out.mkdir()
    metrics = summarise(Context(out, tmp_path, Summary("nano", 0.05), run.paths, told))
    rows = json.loads((out / "claims.json").read_text())
    assert all(set(row) == {"name", "expected", "measured", "interval", "holds", "command"} for row in rows)
    assert all(isinstance(row["measured"], str) and row["measured"] for row in rows)
    data = ReportData.load(out / "report.json")
    assert data.claims == read_claims(out / "claims.json")
    assert (out / "report.html").read_text() == render(data)
    assert metrics == {"claims": 13, "holding": 12, "failing": ["curation_recall_pii"]}
    assert [note.partition(":")[0] for note in told.notes] == ["DOES NOT HOLD"]


def test_a_claim_that_fails_is_red_and_only_it(run: Run, report: ReportData) -> None:
    assert FAILS not in render(report)
    run.change("forecast", "forecast.json", lambda made: made["predicted"].update(value=9.0, high=9.9))
    page = render(report_of(run))
    assert "flagship_loss_predicted" in page.partition(FAILS)[2][:200]  # named at the top of the page
    assert page.count(FAILS) == 4  # the claim and the line that it decides, at the top and in their places
    assert HOLDS in page


def test_every_recipe_short_of_some_stages_has_a_report(good: Run, tmp_path: Path) -> None:
    names = list(good.paths)
    for last in range(0, len(names), 3):  # what there is after so many stages: any prefix is a smaller recipe
        paths = {name: good.paths[name] for name in names[:last]}
        data = report_data(Folders("nano", paths), 0.05)
        assert ReportData.from_json(json.loads(json.dumps(data.to_json()))) == data
        assert "</html>" in render(data)
        assert len(data.announcement) == len(report_of_nothing().announcement)


def report_of_nothing() -> ReportData:
    return report_data(Folders("nano", {}), 0.05)


def test_without_stages_nothing_is_claimed_but_what_the_code_says() -> None:
    data = report_of_nothing()
    assert (data.claims, data.models) == ((), ())
    assert (data.corpus, data.scaling, data.teaching, data.fp8) == (None, None, None, None)
    judged = [line for line in data.announcement if line.holds is not None]
    assert [line.measured[:64] for line in judged] == [
        "the same code describes the three at 8,030,261,248, 70,553,706,4"
    ]


def test_lines_that_no_run_can_show_are_open(report: ReportData) -> None:
    text = " ".join(line.claim for line in report.announcement if line.holds is None)
    for word in ("GPUs", "128K", "closed models", "People", "benchmark", "Safeguards", "production", "single server"):
        assert word in text


def test_a_line_takes_the_verdict_of_its_claim(run: Run) -> None:
    run.rescore("small-taught", result(GOOD["small-alone"]))
    line = lines(report_of(run))["The flagship improves the smaller models' post-training"]
    assert line.holds is False
    assert "+0.0 points" in line.measured


@pytest.mark.parametrize("capability", ["tool_use", "steerability"])
def test_an_ability_under_the_bar_does_not_hold(run: Run, capability: str) -> None:
    run.rescore("round-2", result(dict.fromkeys(CAPABILITIES, 0.9) | {capability: 0.475}))
    found = report_of(run).announcement
    failing = [line.claim for line in found if line.holds is False]
    wanted = {"tool_use": "Models call tools", "steerability": "Models follow instructions more closely"}[capability]
    assert wanted in failing
    assert any(claim.startswith("General knowledge") for claim in failing)


def test_a_language_that_is_not_in_the_suite_does_not_hold(run: Run) -> None:
    run.rescore("round-2", result(0.9, tuple(lang for lang in LANGUAGES if lang != "th")))
    run.drop(*(f"scores-{name}" for name in GOOD if name != "round-2"))
    line = next(line for line in report_of(run).announcement if line.claim.startswith("Eight languages"))
    assert line.holds is False
    assert "not in the suite: th" in line.measured


def test_a_round_without_dpo_is_not_the_round_announced(run: Run) -> None:
    run.change("round-1", "round.json", lambda made: made.update(dpo={"left_out": "3 preference pairs are too few"}))
    data = report_of(run)
    line = next(line for line in data.announcement if line.claim.startswith("Several rounds"))
    assert line.holds is False
    assert "without DPO: round-1" in line.measured
    assert data.rounds[0].preference_pairs == 0
    assert data.rounds[0].gate is not None
    assert "too few" in data.rounds[0].gate.reason


def test_a_mix_of_mostly_seed_dialogues_is_not_mostly_synthetic(run: Run) -> None:
    claim = "Most examples of supervised fine-tuning are synthetic"
    assert "64.3 % of 280 dialogues" in lines(report_of(run))[claim].measured  # 2 x 90 of 100 + 2 x 90
    run.change("round-2", "herd.json", lambda made: made["settings"]["round"]["mix"].update(seed=3.0))
    assert lines(report_of(run))[claim].holds is False


def test_a_model_folder_without_its_tokenizer_does_not_hold(run: Run) -> None:
    (run.paths["small-taught"] / "tokenizer.json").unlink()
    line = next(line for line in report_of(run).announcement if line.claim.startswith("The weights"))
    assert line.holds is False
    assert line.measured == "small lacks tokenizer.json"


def test_a_loss_that_is_no_number_is_not_stable(run: Run) -> None:
    run.change("small-base", "herd.json", lambda made: made["metrics"].update(validation_loss=float("nan")))
    line = next(line for line in report_of(run).announcement if line.claim.startswith("A standard decoder"))
    assert line.holds is False
    assert line.measured.startswith("5 of 6 ")


def test_curves_join_the_phases_of_a_model(report: ReportData) -> None:
    flagship = report.training[0]
    assert flagship.model == "flagship"
    assert len(flagship.tokens) == 20
    assert list(flagship.tokens) == sorted(flagship.tokens)
    assert flagship.tokens[-1] == 2000
    assert flagship.validation_tokens == (500, 1000, 1500, 2000)
    assert flagship.validation_loss[-1] == 2.0
    assert (flagship.seconds, flagship.tokens_per_second) == (8.0, 250.0)
    assert [curve.rung for curve in report.training] == [False, False, True, True, True]


def test_a_long_curve_is_thinned_and_keeps_its_end() -> None:
    points = [(float(n), 1.0, 1.0) for n in range(3 * MOST_POINTS + 5)]
    few = thinned(points)
    assert len(few) <= MOST_POINTS
    assert few[-1] == points[-1]
    assert thinned(points[:7]) == points[:7]
    assert thinned([]) == []


def test_a_refused_fit_is_told(run: Run) -> None:
    run.change("forecast", "forecast.json", lambda _: {"refused": "the runs do not bend", "mend": "wider"})
    data = report_of(run)
    assert data.scaling is not None
    assert data.scaling.refused == "the runs do not bend; wider"
    assert "the runs do not bend" in render(data)


def test_the_corpus_section_counts_repeats_and_escapes_texts(report: ReportData) -> None:
    assert report.corpus is not None
    mixed = {(share.source, share.lang): (share.documents, share.tokens) for share in report.corpus.mix}
    assert mixed == {("paddock", "en"): (3, 9), ("paddock", "th"): (1, 3)}
    assert [example.reason for example in report.corpus.examples] == ["same text: as doc-3"]  # no example of an edit
    assert any("2 inputs could not be read" in warning for warning in report.corpus.warnings)
    assert "<b>twice</b>" not in render(report)


def test_rounds_stand_on_the_suite_and_not_on_the_split_they_chose_by(report: ReportData) -> None:
    first, second = report.rounds
    assert first.average_before is not None
    assert first.average_before.value == pytest.approx(0.60)
    assert second.before == first.after
    assert second.reward_accuracy is not None
    assert (second.reward_accuracy.value, second.reward_accuracy.n) == (0.8, 10)


def test_teaching_is_compared_item_by_item(report: ReportData) -> None:
    teaching = report.teaching
    assert teaching is not None
    assert teaching.average_gain is not None
    assert teaching.average_gain.value == pytest.approx(0.15)
    assert set(teaching.gain) == set(CAPABILITIES)
    for word in (
        "same start, seed dialogues",
        "own accepted answers",
        "small-alone: 20 steps",
        "small-taught: 20 steps",
    ):
        assert word in teaching.budget


def test_fp8_without_its_check_shows_scores_and_sizes(run: Run, report: ReportData) -> None:
    assert report.fp8 is not None
    assert report.fp8.rewards_fp8 == (0.1, 0.4, 0.9)
    (run.paths["fp8-check"] / "check.json").unlink()
    bare = report_of(run).fp8
    assert bare is not None
    assert (bare.bytes_bf16, bare.bytes_fp8, bare.rewards_bf16, bare.agreement) == (1000, 700, (), None)
    assert bare.difference == report.fp8.difference


def test_the_family_and_its_folders(report: ReportData) -> None:
    cards = {card.name: card for card in report.models}
    assert list(cards) == ["flagship", "flagship-fp8", "small", "small-alone"]
    assert cards["flagship"].tokens == 2000
    assert cards["small"].folder == "runs/nano/small"
    assert report.run is not None
    assert report.run.next_command == "herd chat runs/nano/flagship"
    assert report.run.seconds == 2.5 * len(report.run.stages)


def test_every_score_has_its_count(report: ReportData) -> None:
    cells = [cell for cell in report.scores if cell.model == "round-2"]
    assert len(cells) == 1 + 7 + 8 + 56
    whole = sum(cell.score.n or 0 for cell in cells if cell.capability and cell.lang)
    assert [cell.score.n for cell in cells if not cell.capability and not cell.lang] == [whole]


def test_lineage_leads_back_to_the_documents(report: ReportData) -> None:
    nodes = {node.id: node for node in report.lineage}
    node = next(node for node in report.lineage if node.label == "small-taught")
    assert node.kind == "model"
    reached, todo = set(), [node.id]
    while todo:
        one = nodes[todo.pop()]
        reached.add(one.label)
        todo += one.inputs
    assert {"small-base", "round-1", "shards", "corpus", "world"} <= reached


def test_conversations_are_chosen_by_a_rule_that_shows_the_wrong_ones(report: ReportData) -> None:
    shown = report.conversations
    assert "hash" in report.conversations_note
    assert f"How these were chosen: {report.conversations_note[:30]}" in render(report)
    kinds = (*CAPABILITIES, "turn_2", "turn_3", "follow_up")
    assert len(shown) == len(kinds) * (PER_CAPABILITY + 1)
    for capability in kinds:
        talks = [talk for talk in shown if talk.capability == capability]
        assert len({talk.lang for talk in talks[:PER_CAPABILITY]}) == PER_CAPABILITY
        assert any(reply.model == "round-2" and not reply.ok for talk in talks for reply in talk.replies)
    assert all([reply.model for reply in talk.replies] == ["round-2", "small-taught", "small-alone"] for talk in shown)


def test_the_choice_of_conversations_looks_at_replies_only_for_the_extra_one() -> None:
    fine, poor = result(1.0).items, result(0.0).items
    assert [one.id for one in chosen(fine)] == [
        one.id for number, one in enumerate(chosen(poor)) if number % (PER_CAPABILITY + 1) < PER_CAPABILITY
    ]


def test_prompts_are_taken_apart_at_their_headers() -> None:
    prompt = result(1.0).items[0].prompt
    assert [turn.role for turn in turns(prompt)] == ["system", "user"]
    assert turns("no header at all")[0].content == "no header at all"
    head = "<|start_header_id|>{}<|end_header_id|>\n\n"
    call = head.format("assistant") + "<|python_tag|>{}<|eom_id|>" + head.format("ipython") + "4\n<|eot_id|>"
    assert [(turn.role, turn.content) for turn in turns(call + head.format("assistant"))] == [
        ("assistant", "<|python_tag|>{}"),
        ("ipython", "4\n"),
    ]


def test_a_recipe_of_pretraining_alone(tmp_path: Path) -> None:
    run = Run(tmp_path)
    model(run.add("flagship-base", {"tokens": 10, "parameters": 5, "validation_loss": 3.0}))
    data = report_of(run)
    assert [card.name for card in data.models] == ["flagship"]
    assert data.claims == ()
    assert "</html>" in render(data)


def test_the_corpus_shows_tokens_and_what_share_a_users_documents_have(report: ReportData) -> None:
    assert report.corpus is not None
    assert [step.tokens_out for step in report.corpus.steps] == [1250]  # 5,000 characters at 1,250 tokens for 5,000
    assert report.corpus.mix_notes == (
        "sources that mix.weights does not name (mine) have 25.0% of the mix, by mix.other = 0.3",
    )
    page = render(report)
    assert report.corpus.mix_notes[0] in page
    assert "1,250" in page


def test_the_code_that_made_a_run_is_named(good: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("herd.road.summary.lineage.source_version", lambda: "v9-4-gabc")
    found = report_of(good).run
    assert found is not None
    assert found.git == "v9-4-gabc"


def test_turns_of_a_conversation_are_shown_beside_the_suite_and_count_in_no_claim(run: Run, report: ReportData) -> None:
    flagship = {cell.capability: cell.score.value for cell in report.talk_scores if cell.model == "round-2"}
    assert flagship == {"turn_1": 14 / 16, "turn_2": 13 / 16, "turn_3": 12 / 16, "follow_up": 11 / 16}
    assert {cell.model for cell in report.talk_scores} == set(GOOD)
    assert not {cell.capability for cell in report.scores} & set(flagship)
    page = render(report)
    assert "In a conversation" in page
    for name in GOOD:
        shutil.rmtree(run.paths[f"scores-{name}"] / "conversation")
    without = report_of(run)
    assert without.talk_scores == ()
    assert "In a conversation" not in render(without)
    assert (without.claims, without.scores) == (report.claims, report.scores)
