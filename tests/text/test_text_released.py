"""The released tokenizer.model files: official ids, llama.cpp's vectors, tiktoken, sentencepiece, prompt formats.

Needs `tokenizer/tokenizer.model` (tiktoken ranks) in $HERD_DATA or beside the repository in shared/data.
"""

import base64
import gzip
import hashlib
import json
import os
import random
from pathlib import Path

import pytest

from herd.errors import FormatError
from herd.text import Message, StreamDecoder, Tokenizer, encode_dialogue, encode_prompt
from herd.text.specials import SPECIAL_TOKENS
from herd.text.tokenizer import LLAMA3_PATTERN

DATA = Path(os.environ.get("HERD_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
RANKS = DATA / "tokenizer" / "tokenizer.model"
pytestmark = [
    pytest.mark.slow,  # 280,000 merges are found in Python
    pytest.mark.skipif(not RANKS.is_file(), reason=f"no released tokenizer at {RANKS}"),
]


@pytest.fixture(scope="module")
def llama3():
    digest = hashlib.sha256(RANKS.read_bytes()).hexdigest()
    assert digest == "82e9d31979e92ab929cd544440f129d9ecd797b69e327f80f17e1c50d5551b55"
    return Tokenizer.load(RANKS)


@pytest.fixture(scope="module")
def reference():
    tiktoken = pytest.importorskip("tiktoken", reason="pip install 'herd[dev]'")
    lines = (line.split() for line in RANKS.read_bytes().splitlines())
    ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
    return tiktoken.Encoding("llama3", pat_str=LLAMA3_PATTERN, mergeable_ranks=ranks, special_tokens={})


@pytest.fixture(scope="module")
def saved(llama3, tmp_path_factory):
    folder = tmp_path_factory.mktemp("released")
    llama3.save(folder)
    return folder


def test_released_layout(llama3):
    assert llama3.vocab_size == 128_256
    assert [llama3.special(name) for name in SPECIAL_TOKENS] == list(range(128_000, 128_256))
    assert llama3.stop_ids == (128_001, 128_008, 128_009)
    assert llama3.pad == 128_004


def test_single_bytes_are_the_first_ids_in_the_same_order_as_ours(llama3):
    ours = Tokenizer.train([])
    assert [llama3.token_bytes(i) for i in range(256)] == [ours.token_bytes(i) for i in range(256)]


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("This is a test sentence.", "2028 374 264 1296 11914 13"),  # Meta's own test
        ("This is a response.", "2028 374 264 2077 13"),
        ("Hello world", "9906 1917"),
        (" Hello world", "22691 1917"),
        ("hello world", "15339 1917"),
        ("Hello, world!", "9906 11 1917 0"),
        ("Hello  world", "9906 220 1917"),
        ("The quick brown fox jumps over the lazy dog.", "791 4062 14198 39935 35308 927 279 16053 5679 13"),
        ("1234567890", "4513 10961 16474 15"),
        ("3.14159", "18 13 9335 2946"),
        ("def f(x):\n    return x+1\n", "755 282 2120 997 262 471 865 10 16 198"),
        ("\n", "198"),
        ("\n\n", "271"),
        ("   ", "262"),
        ("", ""),
        ("system", "9125"),
        ("user", "882"),
        ("assistant", "78191"),
        ("ipython", "23799 4690"),
        ("Environment: ipython", "13013 25 6125 27993"),
        ("🦙", "9468 99 247"),
        ("¿Cómo estás?", "31282 96997 1826 7206 30"),
        ("Schöne Grüße", "31224 3029 818 95163 24352"),
        ("नमस्ते दुनिया", "61196 88344 79468 100365 35470 100291 101391 100322 24810"),
        ("สวัสดีชาวโลก", "106123 119657 111289 100707 107972"),
        ("<|eot_id|>", "27 91 68 354 851 91 29"),
        ("Color of sky is blue but sometimes can also be", "1668 315 13180 374 6437 719 7170 649 1101 387"),
    ],
)
def test_ids_of_text(llama3, text, ids):
    assert llama3.encode(text) == [int(i) for i in ids.split()]
    assert llama3.decode(llama3.encode(text)) == text


def test_official_chat_message(llama3):
    dialogue = encode_dialogue(llama3, [Message("user", "This is a test sentence.")])
    assert dialogue.ids == [128000, 128006, 882, 128007, 271, 2028, 374, 264, 1296, 11914, 13, 128009]


def test_official_chat_prompts(llama3):
    hello = encode_prompt(llama3, [Message("user", "Hello world")])
    assert hello == [128000, 128006, 882, 128007, 271, 9906, 1917, 128009, 128006, 78191, 128007, 271]


def test_vectors_of_llama_cpp(llama3):
    vectors = DATA / "tokenizer" / "ggml-vocab-llama-bpe.gguf"
    texts = vectors.with_name(vectors.name + ".inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    assert texts.pop() == ""  # the file ends in the separator
    rows = vectors.with_name(vectors.name + ".out").read_text().splitlines()
    assert len(texts) == len(rows) > 40
    for text, row in zip(texts, rows, strict=True):
        assert llama3.encode(text) == [int(number) for number in row.split()], repr(text)


def test_tiktoken_on_twenty_megabytes_in_eight_languages_and_code(llama3, reference):
    n_bytes = 0
    for folder in sorted((DATA / "corpora").iterdir()):
        room = 20_000_000 // 9 + 1
        for path in sorted(folder.glob("*.jsonl.gz"), key=lambda path: path.stat().st_size):
            with gzip.open(path, "rt") as lines:
                for line in lines:
                    text = json.loads(line)["text"]
                    if room > 0:
                        room -= len(text.encode())
                        n_bytes += len(text.encode())
                        assert llama3.encode(text) == reference.encode_ordinary(text), line[:100]
    assert n_bytes > 19_500_000


def test_streams_of_eight_languages_come_in_whole_characters(llama3):
    split = 0
    for folder in sorted((DATA / "corpora").iterdir()):
        room = 1_000_000
        for path in sorted(folder.glob("*.jsonl.gz"), key=lambda path: path.stat().st_size):
            with gzip.open(path, "rt") as lines:
                for line in lines:
                    text = json.loads(line)["text"][:room]
                    room -= len(text)
                    decoder = StreamDecoder(llama3)
                    pieces = [decoder.push(token) for token in llama3.encode(text)]
                    assert decoder.flush() == ""
                    assert "".join(pieces) == text
                    assert "\ufffd" in text or not any("\ufffd" in piece for piece in pieces)
                    split += pieces.count("")
                    if not room:
                        break
    assert split > 1000  # tokens that end within a character


def test_tiktoken_on_every_kind_of_character(llama3, reference):
    points = [chr(c) for c in range(0, 0x110000, 5) if not 0xD800 <= c < 0xE000]
    texts = [f"a{c}b {c}{c}1 {c}\n{c}" for c in points]
    rng = random.Random(0)
    alphabet = "aZ \t\n\r'sStTlL1239!?.,_-ſKéß中日한नมि🦙\u00a0\u2003\u3000\x0b\x85\u2028\ufeff\u200d\u0301<|>{}"
    texts += ["".join(rng.choice(alphabet) for _ in range(rng.randrange(50))) for _ in range(20_000)]
    assert llama3.encode_batch(texts) == [reference.encode_ordinary(text) for text in texts]


def test_transformers_reads_what_we_write(llama3, saved):
    transformers = pytest.importorskip("transformers", reason="pip install 'herd[dev]'")
    theirs = transformers.AutoTokenizer.from_pretrained(saved)
    assert len(theirs) == 128_256
    for text in ("Hello world", "  Grüße\n\n\n1234567 नमस्ते", "<|fake|> it'S"):
        assert theirs(text).input_ids == [128_000, *llama3.encode(text)]
        assert theirs(text, add_special_tokens=False).input_ids == llama3.encode(text)
    talk = [{"role": "user", "content": "Hello world"}]
    ids = theirs.apply_chat_template(talk, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert ids == encode_prompt(llama3, [Message("user", "Hello world")])
    assert ids.count(128_000) == 1


@pytest.fixture(scope="module")
def conversion(saved, tmp_path_factory):
    """The layout of Hugging Face's conversion: merges as strings, two post-processors, reserved names of its own."""
    description = json.loads((saved / "tokenizer.json").read_text())
    byte_level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
    description["post_processor"] = {"type": "Sequence", "processors": [byte_level, description["post_processor"]]}
    description["model"]["merges"] = [" ".join(pair) for pair in description["model"]["merges"]]
    for token in description["added_tokens"]:
        if token["id"] in (128_005, 128_011):
            token["content"] = f"<|reserved_special_token_{2 + (token['id'] == 128_011)}|>"
        elif token["id"] > 128_011:
            token["content"] = f"<|reserved_special_token_{token['id'] - 128_008}|>"
    folder = tmp_path_factory.mktemp("conversion")
    (folder / "tokenizer.json").write_text(json.dumps(description))
    return folder


@pytest.mark.parametrize("ignore_merges", [True, False])
def test_the_conversion_of_hugging_face_is_the_same_tokenizer(llama3, conversion, ignore_merges, tmp_path):
    description = json.loads((conversion / "tokenizer.json").read_text())
    description["model"]["ignore_merges"] = ignore_merges  # the first files of April 2024 lack it
    (tmp_path / "tokenizer.json").write_text(json.dumps(description))
    theirs = Tokenizer.load(tmp_path)
    assert theirs.fingerprint == llama3.fingerprint
    assert (theirs.stop_ids, theirs.pad, theirs.python_tag) == (llama3.stop_ids, llama3.pad, llama3.python_tag)
    for text in ("Hello world", "  Grüße\n\n\n1234567 नमस्ते", "<|eot_id|> it'S", "สวัสดี 🦙"):
        assert theirs.encode(text) == llama3.encode(text)


def test_a_saved_conversion_begins_once_in_transformers(llama3, conversion, tmp_path):
    transformers = pytest.importorskip("transformers", reason="pip install 'herd[dev]'")
    Tokenizer.load(conversion).save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs("Hello world").input_ids == [128_000, *llama3.encode("Hello world")]
    talk = [{"role": "user", "content": "Hello world"}]
    prompt = encode_prompt(llama3, [Message("user", "Hello world")])
    assert theirs.apply_chat_template(talk, add_generation_prompt=True, return_dict=True)["input_ids"] == prompt
    rendered = theirs.apply_chat_template(talk, add_generation_prompt=True, tokenize=False)
    # The text has its begin-of-text already; without this option transformers puts a second one before it.
    assert theirs(rendered, add_special_tokens=False).input_ids == prompt


def test_what_we_write_loads_as_the_same_tokenizer(llama3, saved):
    assert Tokenizer.load(saved).fingerprint == llama3.fingerprint


def test_a_damaged_tokenizer_model_is_named(tmp_path):
    lines = RANKS.read_bytes().splitlines(keepends=True)
    path = tmp_path / "tokenizer.model"
    path.write_bytes(b"".join([*lines[:300], b"!! 300\n", *lines[301:400]]))
    with pytest.raises(FormatError, match="line 301"):
        Tokenizer.load(tmp_path)
    path.write_bytes(b"".join([*lines[:300], *lines[301:400]]))
    with pytest.raises(FormatError, match="lines are missing"):
        Tokenizer.load(path)
