"""`herd serve` itself: keys and where they come from, what is refused, and the program from its start to SIGTERM."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
from serving import quick, tiny_config, tiny_tokenizer

from herd.cli import main
from herd.commands.serve import KEY_VARIABLE, Asked, check_exposure, keys_of
from herd.errors import HerdError, InputError, SettingError
from herd.weights.hf import save_model
from stored_models import make_model


@pytest.fixture
def no_keys(monkeypatch):
    monkeypatch.delenv(KEY_VARIABLE, raising=False)


def test_keys_come_from_the_line_a_file_and_the_environment(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv(KEY_VARIABLE, "third, fourth")
    (tmp_path / "keys").write_text("# of the office\nsecond\n\nfirst\n")
    asked = Asked(Path("m"), api_keys=("first",), api_key_file=tmp_path / "keys")
    assert keys_of(asked) == ("first", "second", "third", "fourth")
    assert "`ps`" in capsys.readouterr().err
    assert keys_of(Asked(Path("m"))) == ("third", "fourth")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("text", ["", "# nothing\n", "two words\x00", "schlüssel"])
def test_files_that_hold_no_keys_are_refused(no_keys, tmp_path, text):
    (tmp_path / "keys").write_text(text)
    with pytest.raises((InputError, SettingError)):
        keys_of(Asked(Path("m"), api_key_file=tmp_path / "keys"))


def test_others_are_let_in_only_with_a_key_or_by_a_word(capsys):
    for host in ("0.0.0.0", "192.168.1.2", "::", "127.evil.example"):
        with pytest.raises(SettingError, match="ask for no key"):
            check_exposure(quick(host=host), (), open_to_all=False)
        check_exposure(quick(host=host), ("key",), open_to_all=False)
    for host in ("127.0.0.1", "localhost", "::1", "127.0.0.2"):
        check_exposure(quick(host=host), (), open_to_all=False)
    assert capsys.readouterr().err == ""
    check_exposure(quick(host="0.0.0.0"), (), open_to_all=True)
    assert "WARNING" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["--port", "70000"],
        ["--host", "0.0.0.0"],
        ["--cache-gb", "1", "--cache-tokens", "5"],
        ["--max-running", "0"],
        ["--api-key", ""],
        ["--tensor-parallel", "2"],
    ],
    ids=" ".join,
)
def test_options_that_cannot_be_are_refused_before_anything_is_loaded(no_keys, capsys, words):
    assert main(["serve", "there-is-no-such-model", "--port", "0", *words]) == SettingError.exit_code
    assert "mend" in capsys.readouterr().err


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    tokenizer = tiny_tokenizer()
    config = tiny_config(tokenizer)
    path = tmp_path_factory.mktemp("models") / "llama"
    save_model(path, make_model(config), config, tokenizer=tokenizer, herd={})
    return path


@contextmanager
def started(folder, before="", until="Ctrl-C stops"):
    """The program, once it has said `until`; what it said. `before`: Python that it runs first."""
    code = f"{before}\nimport sys; from herd.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "serve", str(folder), "--port", "0", "--cache-tokens", "2048"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {KEY_VARIABLE: "secret"})
    said = []
    with process:
        try:
            for line in process.stderr:
                said.append(line)
                if until in line:
                    break
            yield process, said
        finally:
            process.kill()


def asked(said, path, body=None):
    url = re.search(r"http://[\d.:]+", said[0])[0]
    headers = {"Authorization": "Bearer secret", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    return urllib.request.urlopen(urllib.request.Request(f"{url}{path}", data, headers), timeout=20)


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_the_program_from_its_start_to_its_stop(folder, sign):
    with started(folder) as (process, said):
        with asked(said, "/v1/models") as response:
            assert json.load(response)["data"][0]["id"] == "llama"
        process.send_signal(sign)
        rest = process.stderr.read()
        assert process.wait(30) == 0, rest
    text = "".join(said)
    assert "2,048 positions" in text
    assert "secret" not in text
    assert rest == ""


@pytest.mark.slow
def test_a_program_told_to_stop_while_it_loads_leaves_quietly(folder):
    slowly = """
import time
from herd.serve import loading
load = loading.load
def slow(*given):
    time.sleep(3)
    return load(*given)
loading.load = slow
"""
    with started(folder, slowly, until="herd: loading") as (process, said):
        for _ in range(100):
            try:
                asked(said, "/health/live").close()
                break
            except OSError:
                time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
        assert (process.wait(30), rest) == (0, "")


@pytest.mark.slow
def test_the_first_ctrl_c_lets_answers_end_and_the_second_cuts_them(folder):
    body = {"prompt": "The", "max_tokens": 900, "model": "llama", "stream": True, "logprobs": 5}
    body["logit_bias"] = {str(token): -100 for token in tiny_tokenizer().stop_ids}
    for times, n in ((1, 1), (2, 16)):
        with started(folder) as (process, said), asked(said, "/v1/completions", body | {"n": n}) as response:
            assert response.readline().startswith(b"data: ")
            process.send_signal(signal.SIGINT)
            if times == 1:
                assert response.read().endswith(b"data: [DONE]\n\n")
            else:
                time.sleep(0.5)  # signals of one kind that meet are one; nobody reads, so the answer goes on
                process.send_signal(signal.SIGINT)
            rest = process.stderr.read()
            assert process.wait(30) == (0 if times == 1 else 130), rest
            assert "Traceback" not in rest


def test_a_model_that_is_not_there_is_an_error_with_words(no_keys, tmp_path, capsys):
    code = main(["serve", str(tmp_path / "nothing"), "--port", "0"])
    assert code != 0
    assert code in {kind.exit_code for kind in HerdError.__subclasses__()} | {InputError.exit_code}
    assert "herd:" in capsys.readouterr().err


def test_fp8_drafts_and_the_dtype_of_the_cache_are_taken(folder):
    import torch

    from herd.serve.loading import ModelSettings, load
    from herd.weights.fp8 import Fp8Linear

    chosen = ModelSettings(
        folder, device="cpu", fp8="all-linear", draft=str(folder), cache_dtype="fp8", cache_tokens=2048
    )
    loaded = load(chosen, quick())
    model = loaded.engine._model
    assert any(isinstance(module, Fp8Linear) for module in model.modules())
    assert loaded.engine.continuous._cache.layers[0].keys.dtype == torch.float8_e4m3fn
    assert loaded.engine.continuous.speculation is not None
    told = "\n".join(loaded.served.remarks)
    assert "the policy 'all-linear'" in told
    assert f"{folder} guesses what comes next" in told
    assert load(ModelSettings(folder, draft="prompt", cache_gib=0.001), quick()).served.room > 0
    for wrong in ({"fp8": "nonsense"}, {"draft": "nowhere"}):
        with pytest.raises(HerdError):
            load(ModelSettings(folder, cache_tokens=2048, **wrong), quick())
    with pytest.raises(SettingError):
        ModelSettings(folder, cache_dtype="int3")


def test_the_cache_holds_no_more_than_requests_can_ask_for_and_as_much_again(folder):
    from herd.serve.loading import ModelSettings, load

    for running in (1, 3):
        engine = load(ModelSettings(folder, device="cpu"), quick(max_running=running)).engine
        pool = engine.continuous.scheduler.pool
        assert pool.count * pool.size == 2 * running * engine._model.config.max_seq_len


@pytest.mark.parametrize("mapped", [False, True])
def test_weights_of_model_and_drafter_lie_on_large_pages_unless_they_are_to_stay_mapped(folder, monkeypatch, mapped):
    from herd.serve import loading

    moved = []
    monkeypatch.setattr(loading, "fits", lambda model: True)
    monkeypatch.setattr(loading, "make_resident", lambda model: moved.append(model) or 2**30)
    chosen = loading.ModelSettings(folder, device="cpu", draft=str(folder), cache_tokens=2048, mapped=mapped)
    loaded = loading.load(chosen, quick())
    told = [remark for remark in loaded.served.remarks if "large pages" in remark]
    if mapped:
        assert (moved, told) == ([], [])
        return
    assert moved == [loaded.engine._model, loaded.engine._drafter._model]
    assert ["drafter" in remark for remark in told] == [False, True]
    assert all(remark.startswith("1.00 GiB") for remark in told)
