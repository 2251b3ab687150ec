"""The released tokenizer inside our class: Meta's official ids and the prompt formats of its documentation.

Needs `tokenizer/tokenizer.model` (tiktoken ranks) in $HERD_DATA or beside the repository in shared/data.
"""

import base64
import hashlib
import json
import os
from pathlib import Path

import pytest

from herd.text import Message, Tokenizer, encode_dialogue, encode_prompt, parse_reply
from herd.text.specials import SPECIAL_TOKENS

DATA = Path(os.environ.get("HERD_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
RANKS = DATA / "tokenizer" / "tokenizer.model"
pytestmark = [
    pytest.mark.slow,  # 280,000 merges are found in Python
    pytest.mark.skipif(not RANKS.is_file(), reason=f"no released tokenizer at {RANKS}"),
]


def write_tokenizer_json(ranks, folder):
    """Merges out of ranks: whatever two tokens make a third, in the order of the third's rank."""
    plain = Tokenizer.train([])
    plain.save(folder)
    description = json.loads((folder / "tokenizer.json").read_text())
    character = {plain.token_bytes(i): t for t, i in description["model"]["vocab"].items()}
    spelled = {token: "".join(character[bytes([b])] for b in token) for token in ranks}
    merges = []
    for token, rank in ranks.items():
        splits = [(token[:i], token[i:]) for i in range(1, len(token))]
        known = [(ranks[a], ranks[b], a, b) for a, b in splits if a in ranks and b in ranks]
        merges += [(rank, *pair) for pair in sorted(known)]
    merges.sort(key=lambda merge: merge[:3])
    description["model"]["vocab"] = {spelled[token]: rank for token, rank in ranks.items()}
    description["model"]["merges"] = [[spelled[a], spelled[b]] for *_, a, b in merges]
    for i, token in enumerate(description["added_tokens"]):
        token["id"] = len(ranks) + i
    (folder / "tokenizer.json").write_text(json.dumps(description))


@pytest.fixture(scope="module")
def llama3(tmp_path_factory):
    raw = RANKS.read_bytes()
    assert hashlib.sha256(raw).hexdigest() == "82e9d31979e92ab929cd544440f129d9ecd797b69e327f80f17e1c50d5551b55"
    lines = (line.split() for line in raw.splitlines())
    folder = tmp_path_factory.mktemp("released")
    write_tokenizer_json({base64.b64decode(token): int(rank) for token, rank in lines}, folder)
    return Tokenizer.load(folder)


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
        ("Hello world", "9906 1917"),
        ("Hello, world!", "9906 11 1917 0"),
        ("Hello  world", "9906 220 1917"),
        ("The quick brown fox jumps over the lazy dog.", "791 4062 14198 39935 35308 927 279 16053 5679 13"),
        ("1234567890", "4513 10961 16474 15"),
        ("3.14159", "18 13 9335 2946"),
        ("def f(x):\n    return x+1\n", "755 282 2120 997 262 471 865 10 16 198"),
        ("\n\n", "271"),
        ("   ", "262"),
        ("", ""),
        ("ipython", "23799 4690"),
        ("🦙", "9468 99 247"),
        ("¿Cómo estás?", "31282 96997 1826 7206 30"),
        ("Schöne Grüße", "31224 3029 818 95163 24352"),
        ("नमस्ते दुनिया", "61196 88344 79468 100365 35470 100291 101391 100322 24810"),
        ("สวัสดีชาวโลก", "106123 119657 111289 100707 107972"),
        ("<|eot_id|>", "27 91 68 354 851 91 29"),
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
    jeopardy = [
        Message("system", "You are a helpful assistant"),
        Message("user", "Answer who was the first king of Jeopardy?"),
    ]
    assert encode_prompt(llama3, jeopardy)[:9] == [128000, 128006, 9125, 128007, 271, 2675, 527, 264, 11190]
    assert encode_prompt(llama3, jeopardy)[-4:] == [128006, 78191, 128007, 271]


def test_a_built_in_call_of_the_released_model_is_text_with_a_reason(llama3):
    ids = "128010 1347 525 10947 8692 10974 429 19911 3430 315 220 16 9700 6761 909 128008"
    reply = parse_reply(llama3, [int(i) for i in ids.split()])
    assert reply.content.startswith("brave_search.call(query=")
    assert "not JSON" in reply.problem
