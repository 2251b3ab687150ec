"""Which Llama licence of Meta's binds a model, and what it asks of whoever publishes it.

Section 1.b of the Llama 3.1 Community License: a copy of the agreement goes along; "Built with Llama" is displayed; a
model made or improved with Llama Materials, or (since 3.1) with their outputs, has a name that begins with "Llama"; a
text file "Notice" holds the attribution line; use keeps to the Acceptable Use Policy. The released tokenizer is among
the Materials. A model made from nothing of Meta's is not bound. None of this is legal advice.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from herd.errors import ArtifactError, SettingError
from herd.files import read_json
from herd.release.lineage import Lineage, Origin

Llama = Literal["", "weights", "outputs", "none"]

NOTICE_FILE = "Notice.txt"
# SHA-256 of the 128,000 ordinary tokens of the released vocabulary in the order of their ids, one a line, in the
# byte-level alphabet of tokenizer.json; and of the released tokenizer.model. Both computed from the released file.
_VOCABULARY = "8dd8b994f25dc533e90df9906b38f5729193ae5b07a383cb23058e0e0960dc10"
_TOKENIZER_MODEL = "82e9d31979e92ab929cd544440f129d9ecd797b69e327f80f17e1c50d5551b55"
_MATERIALS = 128_000


@dataclass(frozen=True)
class Agreement:
    """One version of the licence. `title` is how its text begins, `hub` its name in a model card's header."""

    hub: str
    title: str
    display: str
    prefix: str
    notice: str
    policy: str
    outputs: bool  # whether models improved with outputs are bound too


LLAMA_3_1 = Agreement(
    "llama3.1",
    "LLAMA 3.1 COMMUNITY LICENSE AGREEMENT",
    "Built with Llama",
    "Llama",
    "Llama 3.1 is licensed under the Llama 3.1 Community License, "
    "Copyright © Meta Platforms, Inc. All Rights Reserved.",
    "https://llama.meta.com/llama3_1/use-policy",
    True,
)
LLAMA_3 = Agreement(
    "llama3",
    "META LLAMA 3 COMMUNITY LICENSE AGREEMENT",
    "Built with Meta Llama 3",
    "Llama 3",
    "Meta Llama 3 is licensed under the Meta Llama 3 Community License, "
    "Copyright © Meta Platforms, Inc. All Rights Reserved.",
    "https://llama.meta.com/llama3/use-policy",
    False,
)
AGREEMENTS = (LLAMA_3_1, LLAMA_3)


@dataclass(frozen=True)
class Bond:
    """The agreement that binds a model, and the reasons; `agreement` None: none of Meta's does."""

    agreement: Agreement | None
    reasons: tuple[str, ...] = ()


def bond(lineage: Lineage, stated: Llama = "") -> Bond:
    """What binds the model, by its lineage, its files, and what the publisher states.

    SettingError when the statement contradicts what is recorded; ArtifactError when nothing is recorded or stated, when
    the licence is one of Meta's that herd does not know, and when two of them bind it.
    """
    found = tuple(dict.fromkeys(_evidence(lineage))) or tuple(_of_tokenizer(lineage))
    if stated == "none" and found:
        raise SettingError(
            f"--llama none contradicts what is recorded: {'; '.join(reason for _, reason in found)}",
            where=str(lineage.model.folder),
            mend="leave --llama away; Llama's licence binds this model",
        )
    if not found and stated in ("weights", "outputs"):
        return Bond(LLAMA_3_1, (f"its publisher states that Llama's {stated} went into it",))
    if not found and not stated and not lineage.known:
        gaps = f": {', '.join(lineage.gaps[:3])}" if lineage.gaps else ""
        raise ArtifactError(
            f"where this model comes from is not recorded{gaps}",
            where=str(lineage.model.folder),
            mend="state it: --llama weights (made from a Llama), --llama outputs (trained on what a Llama wrote), or "
            "--llama none (neither)",
        )
    if not found:
        return Bond(None)
    reasons = tuple(reason for _, reason in found)
    if len({agreement.hub for agreement, _ in found}) > 1:
        raise ArtifactError(
            f"two licences of Meta's bind this model: {'; '.join(f'{one.hub}, for {why}' for one, why in found)}",
            where=str(lineage.model.folder),
            mend="publish it by hand, as both ask",
        )
    return Bond(found[0][0], reasons)


def _evidence(lineage: Lineage) -> Iterator[tuple[Agreement, str]]:
    for origin in lineage.origins:
        if agreement := _of_origin(origin):
            uses = "outputs" if origin.use == "outputs" else "weights"
            if agreement.outputs or uses == "weights":
                yield agreement, f"{uses} of {origin.name} went into it"
    for step in lineage.steps:
        for path in sorted(step.folder.glob("LICEN[SC]E*")):
            if agreement := _of_text(path):
                yield agreement, f"{step.folder.name} holds that licence"
        yield from _of_card(step.folder)
        if name := _named_in_config(step.folder):
            yield _of_name(name) or LLAMA_3_1, f"config.json of {step.folder.name} names {name}"


def _of_tokenizer(lineage: Lineage) -> Iterator[tuple[Agreement, str]]:
    """Asked last: the models of version 3 have the same vocabulary."""
    for step in lineage.steps:
        if _has_released_vocabulary(step.folder):
            yield LLAMA_3_1, f"{step.folder.name} holds the released tokenizer"


def _of_origin(origin: Origin) -> Agreement | None:
    """By the licence that its card states; where that is none of Meta's, by a name that licence asks for."""
    licence = re.sub("[-_]", "", origin.licence.lower())
    if licence.startswith("llama"):
        return _of_version(licence.removeprefix("llama"), f"{origin.name} under the licence {origin.licence}")
    named = _of_name(origin.name)
    return named or (LLAMA_3_1 if "llama" in origin.name.lower() and not licence else None)


def _of_name(name: str) -> Agreement | None:
    """The agreement of the Llama that a name tells of, e.g. Meta-Llama-3-8B; None where it tells of no version."""
    found = re.search(r"llama[-_ ]?(\d(?:[._]\d)?)(?![\d.]*[bkm])", name.lower())
    version = found[1].replace("_", ".") if found else ""
    if name.lower().startswith("meta-llama/"):
        return _of_version(version or "3.1", name)
    return next((one for one in AGREEMENTS if one.hub == f"llama{version}"), None)


def _of_version(version: str, what: str) -> Agreement:
    for one in AGREEMENTS:
        if one.hub == f"llama{version}":
            return one
    raise ArtifactError(
        f"{what} is among what this model was made of, and herd does not know that licence's notices",
        where=what,
        mend="publish it by hand, as that licence asks",
    )


def _of_text(path: Path) -> Agreement | None:
    if not path.is_file() or path.stat().st_size > 1_000_000:
        return None
    head = path.read_text(encoding="utf-8", errors="replace")[:2000].upper()
    found = re.search(r"LLAMA (\d(?:\.\d)?) COMMUNITY LICENSE AGREEMENT", head)
    return _of_version(found[1], str(path)) if found else None


def _of_card(folder: Path) -> Iterator[tuple[Agreement, str]]:
    """What the header of a card among the folders states: a licence, a model that it was made from."""
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace")[:20_000] if card.is_file() else ""
    header = text.partition("\n---")[0] if text.startswith("---") else ""
    stated = r"^licen[sc]e(?:_name)?:\s*(?:\n?\s*-\s*|\[\s*)?['\"]?llama(\d(?:\.\d)?)\b"
    for found in re.finditer(stated, header, re.MULTILINE | re.IGNORECASE):
        yield _of_version(found[1], str(card)), f"{folder.name} holds that licence"
    for name in re.findall(r"\bmeta-llama/[\w.-]+", header, re.IGNORECASE):
        if agreement := _of_name(name):
            yield agreement, f"the card of {folder.name} names {name}"


def _named_in_config(folder: Path) -> str:
    """The Llama that transformers wrote into config.json when it saved a model made from it."""
    path = folder / "config.json"
    content = read_json(path) if path.is_file() else {}
    name = content.get("_name_or_path", "") if isinstance(content, dict) else ""
    found = re.search(r"meta-llama/[\w.-]+", name, re.IGNORECASE) if isinstance(name, str) else None
    return found[0] if found else ""


def _has_released_vocabulary(folder: Path) -> bool:
    binary, plain = folder / "tokenizer.model", folder / "tokenizer.json"
    if binary.is_file() and hashlib.sha256(binary.read_bytes()).hexdigest() == _TOKENIZER_MODEL:
        return True
    if not plain.is_file() or plain.stat().st_size < 1_000_000:  # the released one has 9 MB
        return False
    content = read_json(plain)
    model = content.get("model") if isinstance(content, dict) else None
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    return isinstance(vocabulary, dict) and vocabulary_hash(vocabulary) == _VOCABULARY


def vocabulary_hash(vocabulary: dict[str, int]) -> str:
    """SHA-256 over the ordinary tokens of a tokenizer.json in the order of their ids."""
    ordinary = sorted((id, token) for token, id in vocabulary.items() if isinstance(id, int) and id < _MATERIALS)
    return hashlib.sha256("\n".join(token for _, token in ordinary).encode("utf-8", "surrogatepass")).hexdigest()


def check_name(agreement: Agreement, repo: str) -> None:
    """SettingError when the model's name is not the one that the licence asks for."""
    owner, _, name = repo.rpartition("/")
    if not name.startswith(agreement.prefix.replace(" ", "-")) and not name.startswith(agreement.prefix):
        prefix = agreement.prefix.replace(" ", "-")
        raise SettingError(
            f"the name of this model must begin with '{agreement.prefix}' (its licence, section 1.b.i)",
            where=repo,
            mend=f"publish it as {owner}/{prefix}-{name}",
        )


def agreement_text(agreement: Agreement, lineage: Lineage, given: Path | None) -> Path:
    """Where a copy of the agreement lies: as given, in the model's folder, or in a folder it was made from."""
    places = [given] if given else [p for s in reversed(lineage.steps) for p in sorted(s.folder.glob("LICEN[SC]E*"))]
    for path in places:
        if path.is_file() and agreement.title in path.read_text(encoding="utf-8", errors="replace").upper():
            return path
    if given:
        raise ArtifactError(
            "this is not the text of the agreement", where=str(given), mend=f"it begins with '{agreement.title}'"
        )
    raise ArtifactError(
        "a copy of the licence must go along (its section 1.b.i), and none is here",
        where=str(lineage.model.folder),
        mend="give the LICENSE file that came with the Llama model: --licence-file PATH",
    )


def policy_text(lineage: Lineage) -> Path | None:
    """A copy of the Acceptable Use Policy, where one lies among the folders that the model was made from."""
    found = (path for step in reversed(lineage.steps) for path in sorted(step.folder.glob("USE_POLICY*")))
    return next((path for path in found if path.is_file()), None)
