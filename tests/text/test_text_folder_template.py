"""A chat template that differs from herd's is found, said, and used: same ids as transformers, same mask rules."""

import json
from itertools import takewhile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from herd.errors import FormatError, InputError, NoEffectError
from herd.text import Message, Tokenizer, ToolCall, encode_dialogue, encode_prompt, message_to_dict, parse_reply
from herd.text.beginnings import Beginnings
from herd.text.folder_template import CASES, differs
from herd.text.show import check_trained, show_dialogue
from herd.text.specials import SPECIAL_TOKENS
from herd.text.template import CHAT_TEMPLATE

transformers = pytest.importorskip("transformers", reason="pip install 'herd[dev]'")

# A date at the head, calls without the tag, results as JSON: what the released templates do otherwise than Meta's page.
DATED = """{{- bos_token }}
{%- if messages[0].role == 'system' %}
    {%- set own = messages[0].content | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set own = '' %}
{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\nToday Date: 26 Jul 2024\\n\\n' + own + '<|eot_id|>' }}
{%- for message in messages %}
    {%- if message.tool_calls %}
        {%- if message.tool_calls | length != 1 %}{{- raise_exception('one call') }}{%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n{"name": "' + call.name + '", "parameters": ' }}
        {{- call.arguments | tojson }}{{- '}<|eot_id|>' }}
    {%- elif message.role == 'tool' %}
        {{- '<|start_header_id|>ipython<|end_header_id|>\\n\\n' + message.content | tojson + '<|eot_id|>' }}
    {%- else %}
        {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message.content | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}
"""
# Another family: its own turn tokens, a new line behind each, end of text behind a closed conversation.
TURNS = """{{ bos_token }}{% for m in messages %}\
{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% else %}{{ eos_token }}{% endif %}"""
TALK = [
    Message("system", "Be kind."),
    Message("user", "Hi"),
    Message("assistant", "Yo."),
    Message("user", "And?"),
    Message("assistant", "Bye."),
]
text = st.lists(
    st.text(max_size=6) | st.sampled_from([*SPECIAL_TOKENS[:12], "<|im_end|>", "\ufdd0", "\ufdd07\ufdd1", "{{", "\n"])
).map("".join)
letters = st.text("abc \n.'", max_size=12)


def folder_with(tokenizer, folder, template, renamed=(), config_only=False):
    tokenizer.save(folder)
    path = folder / "tokenizer.json"
    description = json.loads(path.read_text())
    for place, name in renamed:
        description["added_tokens"][place]["content"] = name
    path.write_text(json.dumps(description))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    for place, name in renamed:
        config["added_tokens_decoder"][str(description["added_tokens"][place]["id"])]["content"] = name
    config |= {"chat_template": template, "eos_token": "<|im_end|>" if template == TURNS else "<|eot_id|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    file = folder / "chat_template.jinja"
    file.unlink() if config_only else file.write_text(template)
    return folder


@pytest.fixture(scope="module", params=["dated", "turns"])
def pair(request, tokenizer, tmp_path_factory):
    """Our tokenizer and transformers', of one folder."""
    place = tmp_path_factory.mktemp(request.param)
    if request.param == "dated":
        folder = folder_with(tokenizer, place, DATED)
    else:
        folder = folder_with(tokenizer, place, TURNS, [(20, "<|im_start|>"), (21, "<|im_end|>")])
    return Tokenizer.load(folder), transformers.AutoTokenizer.from_pretrained(folder)


def test_our_own_template_is_no_other(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    assert Tokenizer.load(tmp_path).foreign_format is None
    (tmp_path / "chat_template.jinja").write_text("{#- the same, in other words #}" + CHAT_TEMPLATE)
    assert Tokenizer.load(tmp_path).foreign_format is None


@settings(deadline=None)
@given(st.lists(letters.filter(str.strip), min_size=1, max_size=4))
def test_prompts_are_those_of_transformers(pair, contents):
    ours, theirs = pair
    talk = [Message(("user", "assistant")[i % 2], content.strip()) for i, content in enumerate(contents)]
    talk = talk if len(talk) % 2 else [Message("system", "Be kind."), *talk[:-1]]
    raw = [message_to_dict(message) for message in talk]
    got = theirs.apply_chat_template(raw, add_generation_prompt=True, tokenize=True, return_dict=True)["input_ids"]
    assert encode_prompt(ours, talk) == got


def test_the_differences_are_said(pair):
    found = pair[0].foreign_format.differences
    assert len(found) >= 4
    assert {difference.case for difference in found} <= set(CASES)
    lines = differs(found, indent="").split("\n")
    assert len(lines) == len(found) + 1
    assert "own chat template is used" in lines[0]
    assert lines[1].startswith("a question: it writes '")


@settings(deadline=None)
@given(st.lists(text.filter(lambda t: t.strip()), min_size=2, max_size=2), text)
def test_what_messages_spell_stays_text(pair, said, answer):
    tokenizer, _ = pair
    talk = [Message("system", said[0]), Message("user", said[1])]
    plain = [Message("system", "a"), Message("user", "b")]
    prompt = encode_prompt(tokenizer, talk)
    specials = [i for i in prompt if tokenizer.is_special(i)]
    assert specials == [i for i in encode_prompt(tokenizer, plain) if tokenizer.is_special(i)]
    assert all(content.strip() in tokenizer.decode(prompt) for content in said)
    # Training sees what generation will see, and learns the answer and its stop alone.
    dialogue = encode_dialogue(tokenizer, [*talk, Message("assistant", answer.strip())])
    assert dialogue.ids[: len(prompt)] == prompt
    assert not any(dialogue.trained[: len(prompt)])
    trained = [i for i, learn in zip(dialogue.ids, dialogue.trained, strict=True) if learn]
    assert trained[: len(tokenizer.encode(answer.strip()))] == tokenizer.encode(answer.strip())
    assert trained[-1] in tokenizer.stop_ids


def test_every_answer_is_learnt_with_its_stop(pair):
    tokenizer, _ = pair
    dialogue = encode_dialogue(tokenizer, TALK)
    stops = [i for i, kind in zip(dialogue.ids, dialogue.kinds, strict=True) if kind == "stop"]
    assert len(stops) == 2
    assert stops[0] == stops[1] == tokenizer.stop_ids[-1]  # not what closes the whole conversation
    assert dialogue.kinds[0] == "bos"
    shown = show_dialogue(tokenizer, dialogue)
    assert "[[Yo.<|" in shown
    assert "[[Bye.<|" in shown
    assert "Hi]]" not in shown
    assert parse_reply(tokenizer, [*tokenizer.encode("Bye."), stops[0]]) == Message("assistant", "Bye.")


def plain_pieces(tokenizer, talk):
    """As `FolderFormat` cuts a conversation, every beginning of it being rendered by itself."""
    form = tokenizer.foreign_format

    def render(n, opened):
        return form._template.render(talk[:n], opened=opened, hide=form._hide)

    found, done = [], 0
    for place in [i for i, message in enumerate(talk) if message.role == "assistant"]:
        closed, opened = render(place + 1, False), render(place + 1, True)
        common = "".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(closed, opened, strict=False)))
        ends = [match.end() for match in form._special.finditer(common)]
        end = len(closed) if common == closed else max(ends)
        begin = len(render(place, True)) if place else 0
        found += [(closed[done:begin], False), (closed[begin:end], True)]
        done = end
    return [*found, (render(len(talk), False)[done:], False)]


@settings(deadline=None)
@given(st.lists(text.filter(lambda t: t.strip()), min_size=1, max_size=7), st.booleans())
def test_a_dialogue_is_cut_as_its_beginnings_are_written(pair, contents, system):
    tokenizer, _ = pair
    talk = [Message(("user", "assistant")[i % 2], content) for i, content in enumerate(contents)]
    talk = [Message("system", "Be kind."), *talk] if system else talk
    assert list(tokenizer.foreign_format._pieces(talk, opened=False)) == plain_pieces(tokenizer, talk)


def test_of_a_long_dialogue_every_message_is_looked_for_a_few_times(pair, monkeypatch):
    tokenizer, _ = pair
    looked, look = [], Beginnings._left_out
    monkeypatch.setattr(Beginnings, "_left_out", lambda self, *which: looked.append(which[1]) or look(self, *which))
    talk = [Message(("user", "assistant")[i % 2], f"word {i}") for i in range(120)]
    encode_dialogue(tokenizer, talk)
    assert set(looked) == set(range(120))
    assert len(looked) < 7 * 120


@pytest.mark.parametrize("drops", ["loop.index0 == 2 and loop.length > 4", "loop.index0 == 4 and loop.length > 5"])
def test_a_message_left_out_late_is_noticed(tokenizer, tmp_path, drops):
    template = TURNS.replace("{{ '<|im_start|>' + m", "{% if not (" + drops + ") %}{{ '<|im_start|>' + m")
    template = template.replace("'<|im_end|>\n' }}", "'<|im_end|>\n' }}{% endif %}")
    own = Tokenizer.load(folder_with(tokenizer, tmp_path, template, [(20, "<|im_start|>"), (21, "<|im_end|>")]))
    talk = [Message(("user", "assistant")[i % 2], f"word {i} it is") for i in range(6)]
    encode_dialogue(own, talk[:4])
    with pytest.raises(InputError, match="leaves out the content of message"):
        encode_dialogue(own, talk)


def test_calls_are_written_as_the_template_writes_them(tokenizer, tmp_path):
    dated = Tokenizer.load(folder_with(tokenizer, tmp_path, DATED))
    call = ToolCall("weather", {"town": "<|eot_id|>"})
    talk = [Message("user", "?"), Message("assistant", "", (call,)), Message("ipython", '{"t": 7}')]
    ids = encode_prompt(dated, talk)
    assert '{"name": "weather", "parameters": {"town": "<|eot_id|>"}}<|eot_id|>' in dated.decode(ids)
    assert ids.count(dated.eot) == 4  # the spelled one is text
    assert '"{\\"t\\": 7}"' in dated.decode(ids)


def test_what_a_template_leaves_out_is_refused(tokenizer, tmp_path):
    turns = Tokenizer.load(folder_with(tokenizer, tmp_path, TURNS, [(20, "<|im_start|>"), (21, "<|im_end|>")]))
    with pytest.raises(InputError, match="leaves out the tool call of message 2"):
        encode_prompt(turns, [Message("user", "?"), Message("assistant", "", (ToolCall("weather", {}),))])
    only_last = "{{ bos_token }}{{ messages[-1].content }}<|eot_id|>"
    last = Tokenizer.load(folder_with(tokenizer, tmp_path, only_last))
    with pytest.raises(InputError, match="leaves out the content of message 1"):
        encode_prompt(last, [Message("user", "one"), Message("user", "two")])


def test_what_a_template_refuses_is_said_in_its_words(tokenizer, tmp_path):
    strict = "{% if messages[0].role == 'system' %}{{ raise_exception('no systems here') }}{% endif %}" + TURNS
    strict = Tokenizer.load(folder_with(tokenizer, tmp_path, strict))
    assert "no systems here" in str(strict.foreign_format.differences[1])
    with pytest.raises(InputError, match="no systems here"):
        encode_prompt(strict, TALK[:2])


def test_a_template_that_rewrites_earlier_answers_cannot_be_trained_in_many_turns(tokenizer, tmp_path):
    forgets = DATED.replace(
        "message.content | trim", "(message.content if loop.last else message.content.split('</think>')[-1]) | trim"
    )
    forgets = Tokenizer.load(folder_with(tokenizer, tmp_path, forgets))
    thought = [Message("user", "Hi"), Message("assistant", "<think>so</think>It is seven, I should think.")]
    assert encode_dialogue(forgets, thought).n_trained
    with pytest.raises(InputError, match="otherwise than the model would have to"):
        encode_dialogue(forgets, [*thought, *TALK[3:]])


def test_a_template_without_an_end_token_is_no_use_for_training(tokenizer, tmp_path):
    endless = "{{ bos_token }}{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
    endless = Tokenizer.load(
        folder_with(tokenizer, tmp_path, endless + "{% if add_generation_prompt %}assistant: {% endif %}")
    )
    with pytest.raises(NoEffectError, match="never stop"):
        check_trained(endless, encode_dialogue(endless, TALK[:3]))


@pytest.mark.parametrize(
    "template",
    [
        "{% for %}",
        "{{ messages.nothing.at_all }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ 1 / 0 }}",
        "{{ 'a' * 999999999999 }}",
        "{{ 9 ** 9999999 }}",
        "{% include 'x' %}",
        "{{ strftime_now('%Y') }}",
        "{% for i in range(999999999) %}{% endfor %}",
    ],
)
def test_broken_and_hostile_templates_are_refused_when_used(tokenizer, tmp_path, template):
    broken = Tokenizer.load(folder_with(tokenizer, tmp_path, template))
    assert broken.stop_ids == (broken.end_of_text, broken.eom, broken.eot)
    assert broken.encode("text goes in and out")
    with pytest.raises(FormatError, match="chat template cannot be used") as caught:
        encode_prompt(broken, TALK)
    assert caught.value.where.endswith("chat_template.jinja")
    assert "remove it" in caught.value.mend


def test_a_template_that_never_ends_is_given_up(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("herd.text.folder_template._LIMIT_S", 0.01)
    slow = "{% for i in range(2000) %}{% for j in range(2000) %}{% endfor %}{% endfor %}"  # a second or so
    slow = Tokenizer.load(folder_with(tokenizer, tmp_path, slow))
    with pytest.raises(FormatError, match="runs for more than"):
        encode_prompt(slow, TALK)


def test_where_a_template_may_stand(tokenizer, tmp_path):
    folder = folder_with(tokenizer, tmp_path, DATED, config_only=True)
    assert Tokenizer.load(folder).foreign_format
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": DATED}]
    path.write_text(json.dumps(config | {"chat_template": named}))
    assert Tokenizer.load(folder / "tokenizer.json").foreign_format
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)  # goes before the config, as in transformers
    assert Tokenizer.load(folder).foreign_format is None
    (folder / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(FormatError, match="not UTF-8"):
        Tokenizer.load(folder)
    path.write_text("[]")
    with pytest.raises(FormatError, match="not a JSON object"):
        Tokenizer.load(folder)


def test_it_travels_with_the_tokenizer(pair, tmp_path):
    ours, theirs = pair
    ours.save(tmp_path)
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["eos_token"] == theirs.eos_token
    again = Tokenizer.load(tmp_path)
    assert encode_prompt(again, TALK) == encode_prompt(ours, TALK)
    assert again.stop_ids == ours.stop_ids
