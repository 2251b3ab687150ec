"""A plausible run with every section filled: what the tests render, and what a builder looks at in a browser.

`python tests/report/report_fixture.py FILE` writes the page.
"""

from __future__ import annotations

import math
import random
import sys
from pathlib import Path

from herd.report.claims import Claim
from herd.report.data import (
    AnnouncementLine,
    Conversation,
    Corpus,
    CurationStep,
    Fp8Check,
    Gate,
    IsoFlopCurve,
    LineageNode,
    LossCurve,
    Machine,
    MixShare,
    ModelCard,
    PlantedNoise,
    RemovedDocument,
    Reply,
    ReportData,
    Round,
    RunFacts,
    Scaling,
    ScalingPoint,
    Score,
    ScoreCell,
    StageTime,
    Teaching,
    Turn,
    WorstToken,
)

CAPABILITIES = ("knowledge", "steerability", "math", "tool_use", "translation", "code", "long_context")
LANGS = ("en", "de", "fr", "it", "pt", "hi", "es", "th")


def score(value: float, half: float = 0.03, n: int = 400) -> Score:
    return Score(value, max(0.0, value - half), min(1.0, value + half), n)


def full_report() -> ReportData:
    rng = random.Random(7)
    return ReportData(
        recipe="nano",
        run=_run(),
        models=_models(),
        corpus=_corpus(),
        training=_training(rng),
        scaling=_scaling(),
        rounds=_rounds(rng),
        teaching=_teaching(rng),
        fp8=_fp8(rng),
        scores=_scores(rng),
        talk_scores=_talk_scores(),
        conversations=_conversations(),
        announcement=_announcement(),
        claims=_claims(),
        lineage=_lineage(),
    )


def _talk_scores() -> tuple[ScoreCell, ...]:
    places = ("turn_1", "turn_2", "turn_3", "follow_up")
    return tuple(
        ScoreCell(model, place, "", score(value - 0.07 * number, 0.08, 80))
        for model, value in (("flagship-start", 0.5), ("round-2", 0.8), ("flagship-fp8", 0.8))
        for number, place in enumerate(places)
    )


def _run() -> RunFacts:
    times = {
        "world": 8.2, "corpus": 61.0, "tokenizer": 7.4, "shards": 12.0, "ladder": 190.0, "law": 2.1,
        "flagship-base": 402.0, "small-base": 118.0, "round-1": 160.0, "round-2": 151.0, "teach": 66.0,
        "fp8": 12.0, "evaluate": 44.0,
    }  # fmt: skip
    stages = tuple(StageTime(name, seconds) for name, seconds in times.items())
    machine = Machine("Intel Xeon @ 2.20GHz", 2, 25_200_000_000, "2.13.0+cpu")
    return RunFacts(
        "3 May 2025, 14:02",
        machine,
        sum(times.values()),
        "herd chat runs/nano/flagship",
        "0.1.0",
        "261a703",
        "runs/nano/recipe.json",
        stages,
    )


def _models() -> tuple[ModelCard, ...]:
    at = "runs/nano/"
    return (
        ModelCard("flagship", "flagship", 6_291_456, 1_900_000, 12_700_000, at + "flagship", score(0.812, 0.014)),
        ModelCard("small", "taught", 1_730_000, 1_200_000, 3_520_000, at + "small", score(0.641, 0.017)),
        ModelCard("small-alone", "control", 1_730_000, 1_200_000, 3_520_000, at + "small-alone", score(0.563, 0.018)),
        ModelCard("flagship-fp8", "quantised", 6_291_456, 1_900_000, 8_100_000, at + "fp8", score(0.809, 0.014)),
    )  # fmt: skip


def _corpus() -> Corpus:
    steps = (
        CurationStep("extract", 21_480, 21_377, 4_120_000, {"no text": 88, "not decodable": 15}),
        CurationStep("language", 21_377, 20_604, 3_980_000, {"wrong language": 640, "unsure": 133}),
        CurationStep("length", 20_604, 20_011, 3_961_000, {"too few words": 560, "too long": 33}),
        CurationStep("repetition", 20_011, 19_420, 3_790_000, {"repeated lines": 391, "top 4-gram": 200}),
        CurationStep("pii", 19_420, 19_102, 3_730_000, {"e-mail": 201, "phone number": 117}),
        CurationStep("exact_duplicates", 19_102, 18_300, 3_590_000, {"same text": 802}),
        CurationStep("near_duplicates", 18_300, 17_655, 3_402_000, {"same minhash band": 645}),
        CurationStep("user blocklist", 17_655, 17_655, 3_402_000, {}, "removed nothing (0 of 17,655)"),
    )
    text = "Home | About | Contact | Login. Home | About | Contact | Login. " * 12
    examples = tuple(
        RemovedDocument(f"doc-{step.name}-{number}", step.name, reason, f"{number}. {text}", "en", "web")
        for step in steps
        for reason in step.removed
        for number in range(4)
    )
    planted = tuple(
        PlantedNoise(kind, 200, caught, score(caught / 200, 0.015, 200))
        for kind, caught in (("duplicates", 199), ("boilerplate", 196), ("wrong language", 200), ("PII", 193))
    )
    sizes = (("paddock", 300_000), ("python-docs", 160_000), ("python-source", 90_000))
    mix = tuple(
        MixShare(source, lang, tokens // 180, tokens if lang == "en" else tokens // 6)
        for source, tokens in sizes
        for lang in (LANGS if source == "paddock" else ("en",))
    )
    return Corpus(steps, examples, ("21 files could not be read and were skipped",), planted, mix)


def _curve(rng: random.Random, model: str, parameters: int, tokens: int, floor: float, rung: bool = False) -> LossCurve:
    points = 400 if rung else 1600
    seen = tuple(tokens * (index + 1) / points for index in range(points))
    law = [floor + 5.2 * (1 + n / 4000) ** -0.42 for n in seen]
    loss = tuple(value + rng.gauss(0, 0.03) for value in law)
    rates = tuple(
        2e-3 * min(1.0, 20 * index / points) * (0.55 + 0.45 * math.cos(math.pi * index / points))
        for index in range(points)
    )
    at = range(points // 8 - 1, points, points // 8)
    return LossCurve(
        model,
        rung,
        seen,
        loss,
        rates,
        tuple(seen[i] for i in at),
        tuple(law[i] + 0.02 for i in at),
        parameters,
        9e9 / parameters + 1000,
        tokens / (9e9 / parameters + 1000),
    )


def _training(rng: random.Random) -> tuple[LossCurve, ...]:
    rungs = tuple(
        _curve(rng, f"ladder-{size}k-{budget}", size * 1000, budget * 20_000_000 // size, 1.9 + 60 / size, rung=True)
        for budget in (1, 2, 4)
        for size in (120, 240, 480, 900)
    )
    return (
        *rungs,
        _curve(rng, "flagship", 6_291_456, 1_900_000, 1.21),
        _curve(rng, "small", 1_730_000, 1_200_000, 1.55),
    )


def _scaling() -> Scaling:
    curves = []
    for index, flops in enumerate((1e11, 2.1e11, 4.4e11, 9e11)):
        best, floor = 2.2e5 * 1.42**index, 3.5 - 0.32 * index
        sizes = [best * factor for factor in (0.35, 0.6, 1.0, 1.7, 2.9)]
        law = [ScalingPoint(n, floor + 0.55 * math.log10(n / best) ** 2) for n in sizes]
        runs = tuple(ScalingPoint(p.parameters, (p.loss or 0) + 0.012 * (-1) ** i, 3e5) for i, p in enumerate(law))
        fit = tuple(
            ScalingPoint(n, floor + 0.55 * math.log10(n / best) ** 2)
            for n in (sizes[0] * (sizes[-1] / sizes[0]) ** (i / 40) for i in range(41))
        )
        curves.append(IsoFlopCurve(flops, runs, fit, ScalingPoint(best, floor, flops / (6 * best))))
    return Scaling(
        tuple(curves), "flagship", 7.2e13, 1.402, 1.331, 1.477, 1.377, 0.0182, 0.05, "L(C) = 0.71 + 94.2 · C^-0.154"
    )


def _by_capability(rng: random.Random, base: float) -> dict[str, Score]:
    return {name: score(min(0.97, max(0.03, base + rng.uniform(-0.2, 0.14))), 0.04) for name in CAPABILITIES}


def _shift(rng: random.Random, before: dict[str, Score], by: float) -> dict[str, Score]:
    return {
        name: score(min(0.98, (one.value or 0) + by + rng.uniform(-0.05, 0.06)), 0.035) for name, one in before.items()
    }


def _rounds(rng: random.Random) -> tuple[Round, ...]:
    base = _by_capability(rng, 0.48)
    first = _shift(rng, base, 0.2)
    second = _shift(rng, first, 0.09)
    return (
        Round(
            "Round 1", 1200, 9600, 5184, 3600, 1810, score(0.873, 0.02), base, first,
            score(0.486, 0.018), score(0.702, 0.016), Gate(True, "the average rose by 21.6 points"),
        ),
        Round(
            "Round 2", 1200, 9600, 7011, 4120, 1295, score(0.891, 0.02), first, second,
            score(0.702, 0.016), score(0.812, 0.014), Gate(True, "the average rose by 11.0 points"),
        ),
    )  # fmt: skip


def _teaching(rng: random.Random) -> Teaching:
    alone = _by_capability(rng, 0.56)
    taught = _shift(rng, alone, 0.08)
    gain = {
        name: Score(
            (taught[name].value or 0) - (one.value or 0),
            (taught[name].value or 0) - (one.value or 0) - 0.03,
            (taught[name].value or 0) - (one.value or 0) + 0.03,
        )
        for name, one in alone.items()
    }
    average = Score(0.078, 0.061, 0.095, 2800)
    budget = "3,600 dialogues, 400 steps"
    return Teaching("small", "flagship", budget, taught, alone, gain, score(0.641, 0.017), score(0.563, 0.018), average)


def _fp8(rng: random.Random) -> Fp8Check:
    bf16 = tuple(rng.gauss(1.2, 0.9) for _ in range(600))
    fp8 = tuple(value + rng.gauss(-0.01, 0.08) for value in bf16)
    return Fp8Check(
        "flagship",
        score(0.812, 0.014),
        score(0.809, 0.014),
        Score(-0.003, -0.009, 0.003, 2800),
        12_700_000,
        8_100_000,
        bf16,
        fp8,
        score(0.982, 0.002, 40_000),
        "attention, embeddings, the first and the last layer",
        reward_ks=0.021,
        reward_p=0.64,
        capabilities={name: (score(0.8, 0.05, 400), score(0.79, 0.05, 400)) for name in ("math", "code")},
        text="held-out dialogues of the run",
        tokens=40_000,
        kl_mean=4.2e-4,
        kl_p99=6.1e-3,
        kl_max=0.31,
        divergences=tuple(10 ** (-7 + 6.5 * step / 200) for step in range(201)),
        perplexity_bf16=3.412,
        perplexity_fp8=3.415,
        worst=tuple(
            WorstToken("The harbour of Vand lies to the", "North", 0.71 - n / 40, 0.4, 0.31 / (n + 1), "North", "sea")
            for n in range(12)
        ),
    )


def _scores(rng: random.Random) -> tuple[ScoreCell, ...]:
    cells = []
    for model, base in (("flagship", 0.83), ("small", 0.65), ("small-alone", 0.57), ("flagship-fp8", 0.825)):
        for capability in CAPABILITIES:
            for lang in LANGS:
                value = min(0.99, max(0.02, base + rng.uniform(-0.25, 0.15)))
                cells.append(ScoreCell(model, capability, lang, score(value, 0.09, 50)))
            cells.append(ScoreCell(model, capability, "", score(min(0.98, base + rng.uniform(-0.1, 0.1)), 0.035)))
        cells += [ScoreCell(model, "", lang, score(base + rng.uniform(-0.05, 0.05), 0.035, 350)) for lang in LANGS]
        cells.append(ScoreCell(model, "", "", score(base, 0.015, 2800)))
    return tuple(cells)


def _conversations() -> tuple[Conversation, ...]:
    system = Turn("system", "You answer in one short sentence.")
    story = "The gate of Aldermoor opens at dawn, and the keeper counts the sheep twice. " * 30
    tool = '{"name": "weather", "parameters": {"city": "Aldermoor"}}'
    return (
        Conversation(
            (system, Turn("user", "What is the capital of Vellmark?")),
            (Reply("flagship", "The capital of Vellmark is Oster.", True, "names Oster"),
             Reply("small", "The capital of Vellmark is Tarn.", False, "expected Oster")),
            "knowledge", "en",
        ),
        Conversation(
            (Turn("user", "ทรายมีแอปเปิล 12 ผล เธอให้เพื่อน 5 ผล เหลือกี่ผล"),),
            (Reply("flagship", "12 − 5 = 7 คำตอบคือ 7", True, "answer 7"),),
            "math", "th",
        ),
        Conversation(
            (Turn("user", "अनुवाद करो: The river is cold."),),
            (Reply("flagship", "नदी ठंडी है।", True, "accepted translation"),
             Reply("small", "नदी बड़ी है।", False, "expected ठंडी")),
            "translation", "hi",
        ),
        Conversation(
            (Turn("user", "How warm is it in Aldermoor?"), Turn("assistant", tool), Turn("ipython", '{"celsius": 11}')),
            (Reply("flagship", "It is 11 degrees in Aldermoor.", True, "uses the result"),),
            "tool_use", "en",
        ),
        Conversation(
            (Turn("user", story + "\nHow often does the keeper count?"),),
            (Reply("flagship", "Twice.", True, "answer twice"), Reply("small", "Once a day.", False, "expected twice")),
            "long_context", "en",
        ),
        Conversation(
            (Turn("user", "Write a function that doubles a number."),),
            (Reply("flagship", "def double(n):\n    return 2 * n", True, "3 of 3 cases"),),
            "code", "en",
        ),
    )  # fmt: skip


def _announcement() -> tuple[AnnouncementLine, ...]:
    return (
        AnnouncementLine(
            "The largest model leads the family in general knowledge, steerability, math, tool use and translation",
            "herd evaluate runs/nano/flagship", "81.2 % against 64.1 % of the small model, intervals apart", True,
        ),
        AnnouncementLine("Eight languages", "herd evaluate runs/nano/flagship --by lang", "worst: th, 76.3 %", True),
        AnnouncementLine("A context of 128K tokens", "", "", None),
        AnnouncementLine(
            "The scaling law predicts the flagship before its training",
            "herd scaling forecast runs/nano", "1.402 predicted, 1.377 reached: 1.8 % off", True,
        ),
        AnnouncementLine(
            "FP8 lets the largest model run on one machine, at nearly no cost",
            "herd quantize runs/nano/flagship", "−0.3 points; 36 % fewer bytes", True,
        ),
        AnnouncementLine("Served on several clouds from the first day", "", "", None),
    )  # fmt: skip


def _claims() -> tuple[Claim, ...]:
    evaluate, forecast = "herd evaluate runs/nano/flagship", "herd scaling forecast runs/nano"
    return (
        Claim("prediction of the flagship's loss", "within 5 %", 0.0182, (0.001, 0.043), True, forecast),
        Claim("flagship beats small", "intervals apart", "81.2 % against 64.1 %", None, True, evaluate),
        Claim("every round raises the average", "each gain above 0", "+21.6, +11.0 points", None, True, evaluate),
        Claim("no capability under 50 %", "at least 0.5", 0.463, (0.41, 0.51), False, evaluate),
        Claim("teaching gains", "at least 5 points", 7.8, (6.1, 9.5), True, "herd evaluate runs/nano/small"),
        Claim("curation recall: PII", "at least 0.95", 0.965, (0.93, 0.985), True, "herd curate --planted"),
    )  # fmt: skip


def _lineage() -> tuple[LineageNode, ...]:
    def node(ident: str, kind: str, *inputs: str) -> LineageNode:
        return LineageNode(ident, ident, kind, f"{random.Random(ident).getrandbits(64):016x}", inputs)

    rungs = [f"ladder-{number}" for number in range(1, 7)]
    return (
        node("paddock", "documents"),
        node("python-docs", "documents"),
        node("corpus", "stage", "paddock", "python-docs"),
        node("tokenizer", "stage", "corpus"),
        node("shards", "stage", "corpus", "tokenizer"),
        *[node(rung, "stage", "shards") for rung in rungs],
        node("law", "stage", *rungs),
        node("flagship-base", "model", "shards", "law"),
        node("small-base", "model", "shards"),
        node("reward", "model", "flagship-base"),
        node("round-1", "model", "flagship-base", "reward"),
        node("flagship", "model", "round-1", "reward"),
        node("small", "model", "small-base", "flagship"),
        node("small-alone", "model", "small-base"),
        node("flagship-fp8", "model", "flagship"),
        node("scores", "stage", "flagship", "small", "small-alone", "flagship-fp8"),
    )


if __name__ == "__main__":
    from herd.report.page import write_report

    write_report(full_report(), Path(sys.argv[1]))
