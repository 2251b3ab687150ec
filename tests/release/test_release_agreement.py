"""Which models Llama's licence binds, and that none of them is published without what it asks."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hub_models import tiny
from release_run import make_run, stage

from herd.errors import ArtifactError, SettingError
from herd.files import read_json, write_json
from herd.release import agreement
from herd.release.agreement import AGREEMENTS, LLAMA_3, LLAMA_3_1, bond, check_name, vocabulary_hash
from herd.release.bundle import Options, make_bundle
from herd.release.lineage import trace

DATA = Path(os.environ.get("HERD_DATA", Path(__file__).parents[3] / "shared" / "data"))
TITLE = f" {LLAMA_3_1.title}\n\n Llama 3.1 Version Release Date\n"


def pulled(folder: Path, repo: str = "meta-llama/Llama-3.1-8B", licence: str = "llama3.1", **herd: Any) -> Path:
    tiny(folder, herd={"pulled": {"repo": repo, "licence": licence, "commit": "c" * 40}, **herd})
    (folder / "LICENSE").write_text(TITLE)
    return folder


def made_from(folder: Path, **herd: Any) -> Path:
    return tiny(folder, herd=herd)


def reasons(folder: Path) -> str:
    found = bond(trace(folder))
    assert found.agreement == LLAMA_3_1
    return "; ".join(found.reasons)


def test_a_pulled_llama_and_whatever_is_made_of_it(tmp_path: Path) -> None:
    base = pulled(tmp_path / "base")
    assert "weights of meta-llama/Llama-3.1-8B went into it" in reasons(base)
    tuned = made_from(tmp_path / "tuned", **{"from": str(base)})
    fp8 = made_from(tmp_path / "fp8", **{"from": "tuned"})  # beside it
    assert "weights of meta-llama/Llama-3.1-8B" in reasons(fp8)
    student = made_from(tmp_path / "student", teacher={"model": str(tuned)})
    assert "outputs of meta-llama/Llama-3.1-8B went into it" in reasons(student)
    adopted = tiny(tmp_path / "stages" / "adopt-sft-0" / "model", herd={"adopted_from": str(base)})
    write_json(adopted.parent / "herd.json", {"stage": "adopt-sft", "seconds": 5.0, "inputs": {}})
    assert "weights of meta-llama/Llama-3.1-8B" in reasons(adopted)
    assert trace(adopted).step("adopt-sft")
    adapter = tmp_path / "adapter"
    write_json(adapter / "adapter_config.json", {"base_model_name_or_path": "meta-llama/Llama-3.1-8B"})
    assert "weights of meta-llama/Llama-3.1-8B" in reasons(adapter)
    served = made_from(tmp_path / "served", teacher="Llama-3.1-70B-Instruct")
    assert "outputs of Llama-3.1-70B-Instruct" in reasons(served)


def test_a_run_from_nothing_of_metas_is_free(tmp_path: Path) -> None:
    model = make_run(tmp_path / "stages")
    assert bond(trace(model)).agreement is None
    assert bond(trace(model), "none").agreement is None
    assert bond(trace(model), "outputs").agreement == LLAMA_3_1  # its documents were written by a Llama


def test_an_unknown_origin_must_be_stated(tmp_path: Path) -> None:
    plain = tiny(tmp_path / "plain")
    gap = made_from(tmp_path / "gap", **{"from": str(tmp_path / "gone")})
    tuned = made_from(tmp_path / "tuned", adopted_from=str(plain), stage="adopt-sft")
    for folder in (plain, gap, tuned):
        with pytest.raises(ArtifactError, match="not recorded") as caught:
            bond(trace(folder))
        assert "--llama outputs" in caught.value.mend
        assert bond(trace(folder), "none").agreement is None
        assert bond(trace(folder), "weights").agreement == LLAMA_3_1
    lost = stage(tmp_path / "stages", "round-1", {"policy": "flagship"})
    with pytest.raises(ArtifactError, match="flagship-0123456789ab"):
        bond(trace(lost))


def test_files_betray_a_llama_without_a_record(tmp_path: Path) -> None:
    texts = {"LICENSE.txt": TITLE, "README.md": "---\nlicense: llama3.1\n---\n# Mine\n"}
    for name, text in texts.items():
        folder = tiny(tmp_path / name.partition(".")[0])
        (folder / name).write_text(text)
        assert "holds that licence" in reasons(folder)
        with pytest.raises(SettingError, match="contradicts what is recorded"):
            bond(trace(folder), "none")
    named = tiny(tmp_path / "named")
    config = read_json(named / "config.json")
    write_json(named / "config.json", {**config, "_name_or_path": "meta-llama/Llama-3.1-8B-Instruct"})
    assert "names meta-llama/Llama-3.1-8B-Instruct" in reasons(named)


def test_the_released_vocabulary_is_known(tmp_path: Path) -> None:
    path = DATA / "tokenizer" / "tokenizer.model"
    if not path.is_file():
        pytest.skip("the released tokenizer is not here")
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (byte for byte in range(256) if byte not in printable)
    letters = {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}
    rows = [line.split() for line in path.read_bytes().splitlines()]
    vocabulary = {"".join(letters[byte] for byte in base64.b64decode(token)): int(id) for token, id in rows}
    assert vocabulary_hash(vocabulary) == agreement._VOCABULARY
    folder = tiny(tmp_path / "model", herd={"stage": "flagship", "inputs": {}})
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}))
    assert "released tokenizer" in reasons(folder)
    swapped = vocabulary | {"Ġthe": vocabulary["Ġof"], "Ġof": vocabulary["Ġthe"]}
    assert vocabulary_hash(swapped) != agreement._VOCABULARY
    binary = tiny(tmp_path / "binary", herd={"stage": "flagship", "inputs": {}})
    (binary / "tokenizer.model").write_bytes(path.read_bytes())
    assert "released tokenizer" in reasons(binary)


def test_our_lines_are_those_of_the_licences() -> None:
    for one, folder in ((LLAMA_3_1, "llama3_1_docs"), (LLAMA_3, "llama3_docs")):
        path = DATA / "tokenizer" / folder / "LICENSE"
        if not path.is_file():
            pytest.skip("the licences' texts are not here")
        text = path.read_text(encoding="utf-8")
        assert text.strip().startswith(one.title)
        for line in (f"“{one.display}”", f"“{one.notice}”", f"“{one.prefix}” at the beginning", one.policy):
            assert line in text
        assert ("outputs or results of the Llama Materials to create" in text) == one.outputs


@pytest.mark.parametrize(
    ("name", "licence", "bound"),
    [
        ("meta-llama/Meta-Llama-3.1-8B", "", LLAMA_3_1),
        ("meta-llama/Meta-Llama-3-8B", "other", LLAMA_3),
        ("some/Llama-3.1-Tuned-8B", "my-own-terms", LLAMA_3_1),
        ("some/Hermes-Llama3-8B", "apache-2.0", LLAMA_3),
        ("TinyLlama/TinyLlama-1.1B-Chat", "apache-2.0", None),
        ("openlm/open_llama_3b_v2", "apache-2.0", None),
        ("some/llama-68m", "apache-2.0", None),
        ("some/llama-of-nobody-knows", "", LLAMA_3_1),
    ],
)
def test_origins_are_judged_by_licence_and_name(tmp_path: Path, name: str, licence: str, bound: Any) -> None:
    folder = tiny(tmp_path / "model", herd={"pulled": {"repo": name, "licence": licence}})
    assert bond(trace(folder)).agreement == bound


def test_a_card_that_names_a_llama_and_two_licences_at_once(tmp_path: Path) -> None:
    folder = tiny(tmp_path / "theirs", herd={"pulled": {"repo": "org/x", "licence": "mit"}})
    assert bond(trace(folder)).agreement is None
    (folder / "README.md").write_text("---\nlicense: mit\nbase_model:\n- meta-llama/Llama-3.1-8B\n---\n")
    assert "the card of theirs names meta-llama/Llama-3.1-8B" in reasons(folder)
    older = pulled(tmp_path / "older", "meta-llama/Meta-Llama-3-8B", "llama3")
    (older / "LICENSE").unlink()
    both = made_from(tmp_path / "both", **{"from": str(older), "teacher": str(folder)})
    with pytest.raises(ArtifactError, match=r"two licences of Meta's bind this model: llama3, for .*; llama3.1, for"):
        bond(trace(both))


def test_names() -> None:
    check_name(LLAMA_3_1, "me/Llama-nano")
    check_name(LLAMA_3, "me/Llama-3-tiny")
    for repo in ("me/nano-Llama", "me/llama-nano", "Llama/nano"):
        with pytest.raises(SettingError, match="must begin with 'Llama'") as caught:
            check_name(LLAMA_3_1, repo)
        assert "Llama-" in caught.value.mend


def test_other_licences_of_metas_are_not_guessed(tmp_path: Path) -> None:
    other = pulled(tmp_path / "new", "meta-llama/Llama-3.2-1B", "llama3.2")
    with pytest.raises(ArtifactError, match="does not know that licence's notices"):
        bond(trace(other))
    foreign = tiny(tmp_path / "free", herd={"pulled": {"repo": "org/free", "licence": "apache-2.0"}})
    assert bond(trace(foreign)).agreement is None
    older = tiny(tmp_path / "old", herd={"pulled": {"repo": "meta-llama/Meta-Llama-3-8B", "licence": "llama3"}})
    assert bond(trace(older)).agreement == LLAMA_3
    for name, licence in (("meta-llama/Llama-2-7b-hf", "llama2"), ("meta-llama/Llama-4-Scout-17B-16E", "other")):
        with pytest.raises(ArtifactError, match="does not know that licence's notices"):
            bond(trace(pulled(tmp_path / licence, name, licence)))
    card = tiny(tmp_path / "card")
    (card / "README.md").write_text("---\nlicense:\n- llama3.3\n---\n# Mine\n")
    with pytest.raises(ArtifactError, match=r"README\.md is among"):
        bond(trace(card))
    pupil = tiny(tmp_path / "pupil", herd={"teacher": str(older), "stage": "sft"})
    assert bond(trace(pupil)).agreement is None  # version 3 says nothing of outputs


def test_nothing_goes_without_what_the_licence_asks(tmp_path: Path) -> None:
    base = pulled(tmp_path / "base")
    with pytest.raises(SettingError, match="must begin with 'Llama'"):
        make_bundle(base, "me/nano")
    with pytest.raises(SettingError, match=r"bound by llama3\.1"):
        make_bundle(base, "me/Llama-nano", Options(licence="apache-2.0"))
    (base / "LICENSE").unlink()
    with pytest.raises(ArtifactError, match="a copy of the licence must go along"):
        make_bundle(base, "me/Llama-nano")
    wrong = tmp_path / "MIT.txt"
    wrong.write_text("MIT License")
    with pytest.raises(ArtifactError, match="not the text of the agreement"):
        make_bundle(base, "me/Llama-nano", Options(licence_file=wrong))
    right = tmp_path / "right.txt"
    right.write_text(TITLE)
    bundle = make_bundle(base, "me/Llama-nano", Options(licence_file=right))
    assert bundle.files["LICENSE"] == right
    assert bundle.files["Notice.txt"] == (LLAMA_3_1.notice + "\n").encode()
    assert "**Built with Llama**" in bundle.card
    assert LLAMA_3_1.policy in bundle.card
    assert "license: llama3.1" in bundle.card
    assert len(AGREEMENTS) == 2
