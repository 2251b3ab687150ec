"""transformers reads our folder and gives our ids: an implementation that shares only the Rust core with us."""

import random

import pytest

from herd.text import Message, ToolCall, encode_prompt, message_to_dict, with_tools

transformers = pytest.importorskip("transformers", reason="pip install 'herd[dev]'")

WORDS = [
    "Hello",
    " world",
    "\n\n",
    "  ",
    "naïve",
    "नमस्ते",
    "สวัสดี",
    "🦙",
    "{",
    '"a"',
    "12345",
    "'ll",
    "\t",
    "!",
    "<|",
    "|>",
]


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tokenizer.save(folder)
    return folder


@pytest.fixture(scope="module", params=["auto", "fast", "beside a Llama config"])
def theirs(request, folder, tokenizer, tmp_path_factory):
    if request.param == "fast":
        return transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    if request.param == "auto":
        return transformers.AutoTokenizer.from_pretrained(folder)
    beside = tmp_path_factory.mktemp("llama")
    tokenizer.save(beside)
    transformers.LlamaConfig(vocab_size=tokenizer.vocab_size).save_pretrained(beside)
    return transformers.AutoTokenizer.from_pretrained(beside)


def random_text(rng):
    return "".join(rng.choice(WORDS) for _ in range(rng.randrange(12)))


def random_dialogue(rng):
    talk = [Message("system", random_text(rng))] if rng.random() < 0.5 else []
    for _ in range(rng.randrange(1, 4)):
        talk.append(Message("user", random_text(rng)))
        if rng.random() < 0.5:
            arguments = {"a": rng.randrange(9), "b": [random_text(rng), None, True, 0.5], "ü": {}}
            call = ToolCall(rng.choice(["f", 'say "x"']), arguments)
            talk += [Message("assistant", random_text(rng), (call,)), Message("ipython", random_text(rng))]
        talk.append(Message("assistant", random_text(rng)))
    return [*talk, Message("user", random_text(rng))]


def test_same_ids_and_exactly_one_begin_of_text(theirs, tokenizer):
    rng = random.Random(1)
    for _ in range(100):
        text = random_text(rng)
        ids = tokenizer.encode(text)
        assert theirs(text).input_ids == [tokenizer.bos, *ids]
        assert theirs(text, add_special_tokens=False).input_ids == ids
        assert theirs.decode(ids) == tokenizer.decode(ids)


def test_same_chat_prompts(theirs, tokenizer):
    rng = random.Random(2)
    for _ in range(200):
        talk = random_dialogue(rng)
        raw = [message_to_dict(message) for message in talk]
        text = theirs.apply_chat_template(raw, add_generation_prompt=True, tokenize=False)
        assert text == tokenizer.decode(encode_prompt(tokenizer, talk))
        got = theirs.apply_chat_template(raw, add_generation_prompt=True, tokenize=True, return_dict=True)
        assert got["input_ids"] == encode_prompt(tokenizer, talk)


def test_same_tools_in_the_prompt(theirs, tokenizer):
    rng = random.Random(3)
    for _ in range(50):
        talk = random_dialogue(rng)
        functions = [
            {"name": f"f{i}", "description": random_text(rng), "parameters": {"type": "object"}} for i in (1, 2)
        ]
        tools = [{"type": "function", "function": functions[0]}, functions[1]]
        raw = [message_to_dict(message) for message in talk]
        text = theirs.apply_chat_template(raw, tools=tools, add_generation_prompt=True, tokenize=False)
        assert text == tokenizer.decode(encode_prompt(tokenizer, with_tools(talk, tools)))


def test_same_named_tokens(theirs, tokenizer):
    assert len(theirs) == tokenizer.vocab_size
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (
        tokenizer.bos,
        tokenizer.eot,
        tokenizer.pad,
    )


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "robot", "content": ""}],
        [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {}}}] * 2}],
    ],
)
def test_template_refuses_what_it_would_lose(theirs, messages):
    with pytest.raises(Exception, match=r"role|one tool call"):
        theirs.apply_chat_template(messages, tokenize=False)
