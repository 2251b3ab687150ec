"""One round of post-training as an object (paper 4.1 and 4.2): from a policy and prompts to a better policy, or not.

    draw -> judge -> select (with quality control) -> reward -> sft -> dpo -> average -> gate

    result = run_round(1, inputs, settings, folder, progress)
    result.model        # the policy that goes on: the new one if it passed the gate, otherwise the one before

The reward model that judges is the one of the round before, so that its agreement with the verifier is measured on
replies it has never seen; it is then trained anew on all preferences so far. Round 1 may do without. Each sub-step
leaves its folder (`draw/`, `judge/`, ...) and is not done twice; trainings resume inside themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from herd.config import fingerprint, to_plain
from herd.devices import device_of
from herd.errors import InputError, NoEffectError
from herd.files import read_json, write_json
from herd.llama.model import Llama
from herd.posttrain.average import pick
from herd.posttrain.collect import Collected, Means, collect
from herd.posttrain.finish import Evaluate, Scores, average_models, gate
from herd.posttrain.ledger import Ledger
from herd.posttrain.records import Accepted, Preference, Prompt
from herd.posttrain.settings import RoundSettings
from herd.posttrain.steps import Steps, load_policy, save_policy
from herd.posttrain.training import (
    Conversation,
    encode_pairs,
    model_key,
    sft_dialogues,
    train_dpo,
    train_reward,
    train_sft,
    training_report,
)
from herd.progress import Progress, Silent
from herd.train.objectives.reward import RewardModel
from herd.train.reward_files import load_reward, save_reward


@dataclass(frozen=True)
class RoundInputs:
    """What a round works with. `evaluate` scores a model on a split that is kept for choosing, not for reporting."""

    policy: Llama  # draws the candidates; the model to beat
    tasks: Sequence[Prompt]
    seed_dialogues: Sequence[Conversation]
    means: Means
    evaluate: Evaluate
    base: Llama | None = None  # the pre-trained model; needed when SFT or the reward model starts from it
    reward: RewardModel | None = None  # of the round before
    earlier_accepted: Sequence[Accepted] = ()
    earlier_preferences: Sequence[Preference] = ()
    extra_dialogues: Sequence[Conversation] = ()


@dataclass(frozen=True)
class RoundResult:
    """`model` and `scores` are of the policy that goes on; `passed` says whether this round made it.

    `accepted` and `preferences` are this round's own; `report` is a plain dict, also in `folder/round.json`.
    """

    number: int
    model: Llama
    passed: bool
    scores: Scores
    reward: RewardModel | None
    accepted: list[Accepted]
    preferences: list[Preference]
    report: dict[str, Any]


def run_round(
    number: int, inputs: RoundInputs, settings: RoundSettings, folder: Path, progress: Progress | None = None
) -> RoundResult:
    """Run round `number` in `folder`, or the part of it that is not there yet.

    A round without one accepted reply says so and learns from the rest of its mix. Raises NoEffectError where the gate
    is set to stop: then, and when the gate failed; ArtifactError when `folder` holds another round; InputError for
    unusable prompts or a missing base model; and what `train` raises.
    """
    work = _Round(number, inputs, settings, Path(folder), progress or Silent())
    collected = collect(
        inputs.policy, inputs.reward, inputs.tasks, inputs.means, settings.collect, work.steps, work.progress
    )
    if not collected.accepted:
        work.nothing_accepted(number, collected.report["no_answers"])
    reward, reward_report = work.reward(collected)
    sft, sft_report = work.sft(collected)
    dpo, dpo_report = work.dpo(sft, collected)
    model, before, after, average_report = work.average(sft, dpo)
    verdict = gate(number, before, after, settings.gate, work.progress)
    report = {
        "round": number,
        **collected.report,
        "reward": reward_report,
        "sft": sft_report,
        "dpo": dpo_report,
        "average": average_report,
        "gate": verdict,
        "scores": {"before": before.plain(), "after": after.plain()},
    }
    write_json(work.steps.folder / "round.json", report)
    passed = bool(verdict["passed"])
    return RoundResult(
        number=number,
        model=model if passed else inputs.policy,
        passed=passed,
        scores=after if passed else before,
        reward=reward,
        accepted=collected.accepted,
        preferences=collected.preferences,
        report=report,
    )


def run_rounds(
    inputs: RoundInputs, settings: Sequence[RoundSettings], folder: Path, progress: Progress | None = None
) -> list[RoundResult]:
    """Rounds one after another, each from the best policy so far, in `folder/round-1`, `folder/round-2`, ..."""
    results: list[RoundResult] = []
    for number, one in enumerate(settings, 1):
        results.append(run_round(number, inputs, one, Path(folder) / f"round-{number}", progress))
        inputs = following(inputs, results[-1])
    return results


def following(inputs: RoundInputs, result: RoundResult) -> RoundInputs:
    """The inputs of the round after `result`: its policy and reward model, and everything accepted so far."""
    return replace(
        inputs,
        policy=result.model,
        reward=result.reward,
        earlier_accepted=[*inputs.earlier_accepted, *result.accepted],
        earlier_preferences=[*inputs.earlier_preferences, *result.preferences],
    )


class _Round:
    """The trainings of one round, each as what its sub-step makes and loads."""

    def __init__(
        self, number: int, inputs: RoundInputs, settings: RoundSettings, folder: Path, progress: Progress
    ) -> None:
        self.inputs, self.settings, self.progress = inputs, settings, progress
        self.tokenizer, self.device = inputs.means.tokenizer, device_of(inputs.policy)
        self.load_policy = partial(load_policy, device=self.device)
        on_base = settings.start == "base" or (settings.reward is not None and settings.reward.start == "base")
        if inputs.base is None and on_base:
            raise InputError(
                "this round starts from the pre-trained model, and none was given",
                where="RoundInputs.base",
                mend="hand it in as `base`, or set start='previous' and reward.start='policy'",
            )
        self.steps = Steps(folder, _key(number, inputs, settings), progress)

    def nothing_accepted(self, number: int, why: str) -> None:
        if self.settings.gate.on_failure == "stop":
            raise NoEffectError(why, mend="train the policy longer on seed dialogues, draw more, or ask easier prompts")
        self.progress.note(f"ROUND {number}: {why}. It learns from the rest of the mix.")

    def start(self, where: str) -> Llama:
        """The model to train a copy of: "base" or the policy."""
        return self.inputs.base if where == "base" and self.inputs.base is not None else self.inputs.policy

    def reward(self, collected: Collected) -> tuple[RewardModel | None, dict[str, Any]]:
        """A reward model on all preferences so far; the one of the round before where there are too few."""
        settings = self.settings.reward
        preferences = [*self.inputs.earlier_preferences, *collected.preferences]
        if settings is None or len(preferences) < settings.min_pairs:
            return self.inputs.reward, self._left_out("reward model", len(preferences), settings is None)

        def make(folder: Path) -> None:
            ledger = Ledger()
            model, report = train_reward(
                self.start(settings.start),
                preferences,
                settings,
                self.tokenizer,
                self.steps.scratch("reward"),
                ledger,
                self.progress,
            )
            report = report | {"quality": ledger.report()}
            tokenizer, dtype = self.tokenizer, torch.float32  # the next round judges with these very weights
            save_reward(folder / "model", model, pad=tokenizer.pad, tokenizer=tokenizer, dtype=dtype, herd=report)
            write_json(folder / "report.json", report)

        def load(folder: Path) -> tuple[RewardModel, dict[str, Any]]:
            return load_reward(folder / "model", self.device), read_json(folder / "report.json")

        return self.steps.run("reward", make, load)

    def sft(self, collected: Collected) -> tuple[Llama, dict[str, Any]]:
        """SFT on the mix of seed dialogues, accepted answers and extras."""

        def make(folder: Path) -> None:
            ledger, settings = Ledger(), self.settings
            parts = {
                "seed": (self.inputs.seed_dialogues, settings.mix.seed),
                "accepted": ([one.messages for one in collected.accepted], settings.mix.accepted),
                "earlier": ([one.messages for one in self.inputs.earlier_accepted], settings.mix.earlier),
                "extra": (self.inputs.extra_dialogues, settings.mix.extra),
            }
            dialogues, counts = sft_dialogues(parts, self.tokenizer, settings.sft.seq_len, settings.seed, ledger)
            scratch = self.steps.scratch("sft")
            start = self.start(settings.start)
            model, result = train_sft(start, dialogues, settings.sft, self.tokenizer, scratch, self.progress)
            report = training_report(result) | {"dialogues": counts, "quality": ledger.report()}
            save_policy(folder, model, self.tokenizer, report)

        return self.steps.run("sft", make, self.load_policy)

    def dpo(self, sft: Llama, collected: Collected) -> tuple[Llama | None, dict[str, Any]]:
        """DPO on this round's pairs alone: the newest, drawn from the best policy (paper 4.1.4)."""
        settings, found = self.settings.dpo, collected.preferences
        if settings is None or len(found) < settings.min_pairs:
            return None, self._left_out("DPO", len(found), settings is None)

        def make(folder: Path) -> None:
            ledger = Ledger()
            widest = [(one.prompt, *one.widest()) for one in found]
            pairs = encode_pairs(widest, self.tokenizer, settings.train.seq_len, ledger)
            model, result = train_dpo(sft, pairs, settings, self.tokenizer, self.steps.scratch("dpo"), self.progress)
            report = training_report(result) | {"pairs": len(pairs), "quality": ledger.report()}
            save_policy(folder, model, self.tokenizer, report)

        return self.steps.run("dpo", make, self.load_policy)

    def average(self, sft: Llama, dpo: Llama | None) -> tuple[Llama, Scores, Scores, dict[str, Any]]:
        """The best of the mixes by evaluation: its model, the scores before and after, and all scores by name."""

        def make(folder: Path) -> None:
            models = {"previous": self.inputs.policy, "sft": sft} | ({} if dpo is None else {"dpo": dpo})
            mixes = average_models(models, self.settings.averages)
            scores = {name: self.inputs.evaluate(model) for name, model in mixes.items()}
            chosen, _ = pick(scores, lambda one: one.average)
            before = self.inputs.evaluate(self.inputs.policy)
            report = {
                "chosen": chosen,
                "scores": {name: one.plain() for name, one in scores.items()},
                "before": before.plain(),
            }
            save_policy(folder, mixes[chosen], self.tokenizer, report)

        model, report = self.steps.run("average", make, self.load_policy)
        after = Scores.from_plain(report["scores"][report["chosen"]])
        return model, Scores.from_plain(report["before"]), after, report

    def _left_out(self, what: str, pairs: int, by_setting: bool) -> dict[str, Any]:
        reason = "its settings are null" if by_setting else f"{pairs} preference pairs are too few"
        self.progress.note(f"{what} left out: {reason}")
        return {"left_out": reason}


def _key(number: int, inputs: RoundInputs, settings: RoundSettings) -> dict[str, Any]:
    """Everything that decides what a round makes."""
    models = {"policy": inputs.policy, "base": inputs.base, "reward": inputs.reward}
    dialogues = [*inputs.seed_dialogues, *inputs.extra_dialogues, *(one.messages for one in inputs.earlier_accepted)]
    return {
        "number": number,
        "settings": to_plain(settings),
        "models": {name: None if model is None else model_key(model) for name, model in models.items()},
        "tokenizer": inputs.means.tokenizer.fingerprint,
        "tasks": fingerprint([[task.id, list(map(repr, task.messages))] for task in inputs.tasks]),
        "dialogues": fingerprint([list(map(repr, messages)) for messages in dialogues]),
        "preferences": fingerprint([repr(one) for one in inputs.earlier_preferences]),
    }
