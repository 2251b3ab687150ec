"""The files to publish: a model's own and no others, the card, the licence's texts, a herd.json without paths.

bundle = make_bundle(Path("runs/nano/flagship"), "me/nano-flagship", Options(licence="apache-2.0"))
bundle.card; bundle.files; bundle.left_aside
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from herd.errors import InputError, SettingError
from herd.hub.listing import Listing, RemoteFile, is_safe
from herd.hub.select import choose
from herd.hub.standing import RECORD
from herd.release.agreement import (
    NOTICE_FILE,
    Bond,
    Llama,
    agreement_text,
    bond,
    check_name,
    policy_text,
)
from herd.release.card import Card, write_card
from herd.release.energy import energy_of
from herd.release.facts import facts_of, languages
from herd.release.licences import check_licence
from herd.release.lineage import Lineage, trace
from herd.release.portable import anonymous, base_of, rewritten
from herd.release.scores import scores_of
from herd.weights.herd_json import herd_json

_NO_LICENCE = re.compile(r"LICEN[SC]E.*|NOTICE.*|USE_POLICY.*|README.*", re.IGNORECASE)


@dataclass(frozen=True)
class Options:
    """What only the publisher can say; empty or 0 is not stated."""

    licence: str = ""  # of a model that no licence of Meta's binds, as the hub names it: apache-2.0
    licence_file: Path | None = None  # the text that goes along as LICENSE
    base: str = ""  # of an adapter, as the hub names it, where the adapter says only where it lay here
    made_from: Path | None = None  # the folder that was converted, where the files do not say (GGUF)
    llama: Llama = ""
    scores: Path | None = None
    about: Path | None = None  # Markdown that opens the card
    languages: tuple[str, ...] = ()
    kwh: float = 0.0
    watts: float = 0.0
    grams: float = 0.0


@dataclass(frozen=True)
class Bundle:
    """`files` maps names in the repository to a file here or to bytes made for it."""

    files: Mapping[str, Path | bytes]
    card: str
    bond: Bond
    left_aside: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def sizes(self) -> dict[str, int]:
        return {name: len(c) if isinstance(c, bytes) else c.stat().st_size for name, c in sorted(self.files.items())}


def make_bundle(folder: Path, repo: str, options: Options = Options()) -> Bundle:
    """Everything that `repo` will hold. Nothing is written or sent.

    Raises SettingError where name or licence are not what they must be, ArtifactError where the model is not whole or
    its origin is not known, InputError where the folder holds no model.
    """
    folder = Path(folder)
    lineage = trace(folder, options.made_from)
    bound = bond(lineage, options.llama)
    licence = _licence_id(bound, options)
    if bound.agreement:
        check_name(bound.agreement, repo)
    files = _own_files(folder)
    left = sorted(path.name for path in folder.iterdir() if path.name not in files and not _is_made(path.name))
    base = base_of(folder, lineage, options.base)
    facts = facts_of(folder, base)
    card = Card(
        repo=repo,
        licence=licence,
        bond=bound,
        lineage=lineage,
        facts=facts,
        scores=scores_of(folder, options.scores),
        energy=energy_of(lineage, kwh=options.kwh, watts=options.watts, grams=options.grams),
        languages=languages(lineage, options.languages, bound.agreement is not None),
        about=_about(options.about) if options.about else "",
    )
    text = write_card(card)
    made = {"README.md": text.encode(), "herd.json": _record(folder, lineage, bound)}
    return Bundle(
        {**files, **rewritten(folder, files, base), **_texts(bound, lineage, options), **made},
        text,
        bound,
        tuple(left),
        _notes(lineage, bound),
    )


def _about(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read as text: {error}", where=str(path), mend="give a Markdown file") from error
    if text.lstrip().startswith("---"):
        raise InputError(
            "the text begins with a header of its own", where=str(path), mend="leave that away: the card gets herd's"
        )
    return text


def _notes(lineage: Lineage, bound: Bond) -> tuple[str, ...]:
    """What only the publisher can know, said where it would change something."""
    notes = []
    if lineage.own_texts and not bound.agreement:
        texts = ", ".join(lineage.own_texts)
        notes.append(f"your own texts went into it ({texts}): if a Llama of Meta's wrote any, state --llama outputs")
    for origin in lineage.origins:
        if not origin.licence and not bound.agreement and "/" in origin.name:
            notes.append(f"{origin.name} went into it, and no licence of it is recorded: see that you may publish it")
        elif origin.licence and not (bound.agreement and origin.licence == bound.agreement.hub):
            notes.append(f"{origin.name} went into it, under {origin.licence}: see that your licence may be given")
    return tuple(notes)


def _licence_id(bound: Bond, options: Options) -> str:
    if bound.agreement:
        if options.licence not in ("", bound.agreement.hub):
            raise SettingError(
                f"this model is bound by {bound.agreement.hub}: {'; '.join(bound.reasons)}",
                where="--licence",
                mend="leave --licence away",
            )
        return bound.agreement.hub
    if not options.licence:
        raise SettingError(
            "under which licence do you publish this model?", where="--licence", mend="e.g. --licence apache-2.0"
        )
    if options.licence.startswith("llama"):
        raise SettingError(
            f"nothing of Meta's is recorded in this model, so that {options.licence} is not its licence",
            where="--licence",
            mend="where a Llama did go into it, state --llama weights or --llama outputs",
        )
    check_licence(options.licence, options.licence_file)
    return options.licence


def _is_made(name: str) -> bool:
    return name == "herd.json" or _NO_LICENCE.fullmatch(name) is not None


def _own_files(folder: Path) -> dict[str, Path]:
    """The model's files, by the same rules by which one is pulled; texts and herd.json are made anew."""
    found = [path for path in sorted(folder.iterdir()) if path.is_file() and is_safe(path.name)]
    listing = Listing(
        str(folder), "model", "here", "", tuple(RemoteFile(path.name, path.stat().st_size, "") for path in found)
    )
    names = [path.name for path in found if path.suffix.lower() == ".gguf"]
    if not names or {"config.json", "adapter_config.json"} & {path.name for path in found}:
        wanted = choose(listing)
        if wanted.layout not in ("hf", "peft"):
            raise InputError(
                f"a folder in the layout {wanted.layout} is not published",
                where=str(folder),
                mend=f"convert it first: herd convert {folder} NEW --to hf",
            )
        names = [name for name in wanted.files if not _is_made(name)]
    inside = folder.resolve()
    for name in names:
        if not (folder / name).resolve().is_relative_to(inside):
            raise InputError(f"{name} is a link out of the folder", where=str(folder), mend="copy the file into it")
    return {name: folder / name for name in names}


def _texts(bound: Bond, lineage: Lineage, options: Options) -> dict[str, Path | bytes]:
    """LICENSE, and for a model bound by Meta's licence its notice and policy."""
    if bound.agreement is None:
        given = options.licence_file
        if given and not given.is_file():
            raise InputError("there is no such file", where=str(given), mend="name the licence's text")
        return {"LICENSE": given} if given else {}
    texts: dict[str, Path | bytes] = {
        "LICENSE": agreement_text(bound.agreement, lineage, options.licence_file),
        NOTICE_FILE: f"{bound.agreement.notice}\n".encode(),
    }
    if policy := policy_text(lineage):
        texts["USE_POLICY.md"] = policy
    return texts


def _record(folder: Path, lineage: Lineage, bound: Bond) -> bytes:
    """herd.json as others get it: the whole lineage, and no path of this machine."""
    import json

    steps = [dict(step.made) for step in lineage.steps if step.made]
    for step in steps:
        if isinstance(step.get(RECORD), dict):
            step[RECORD] = {name: value for name, value in step[RECORD].items() if name != "files"}
    record = {
        **{name: value for name, value in herd_json(folder).items() if name == "fp8"},
        "released": {
            "licence_of_meta": bound.agreement.hub if bound.agreement else "",
            "origins": [
                {"name": one.name, "use": one.use, "licence": one.licence, "commit": one.commit}
                for one in lineage.origins
            ],
            "steps": steps,
        },
    }
    return (json.dumps(anonymous(record), indent=2, ensure_ascii=False) + "\n").encode(errors="backslashreplace")
