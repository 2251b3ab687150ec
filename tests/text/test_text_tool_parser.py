"""Tool calls in replies: every form, beside prose, cut anywhere; and what is no call stays text."""

import json
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from herd.text import ReplyStream, ToolCall, ToolParser
from herd.text.call_forms import read_list
from herd.text.tool_parser import Call, Malformed, Text

TOOLS = ("weather", "add", "now", "clock.now")
WEATHER = '{"name": "weather", "parameters": {"town": "Bern"}}'
BERN = ToolCall("weather", {"town": "Bern"})


def joined(events):
    """Neighbouring texts as one: how they are cut depends on the pushes."""
    out = []
    for event in events:
        if isinstance(event, Text) and out and isinstance(out[-1], Text):
            out[-1] = Text(out[-1].text + event.text)
        else:
            out.append(event)
    return out


def parse(*pieces, tools=TOOLS):
    """Events of pieces of text; None stands for the python tag."""
    parser, events = ToolParser(tools), []
    for piece in pieces:
        events += parser.tag() if piece is None else parser.push(piece)
    return joined([*events, *parser.finish()])


@pytest.mark.parametrize(
    ("reply", "events"),
    [
        (WEATHER, [Call(BERN)]),
        (f'{{"type": "function", {WEATHER[1:]}', [Call(BERN)]),
        (WEATHER.replace("parameters", "arguments"), [Call(BERN)]),
        ('{"parameters": {"town": "Bern"}, "name": "weather"}', [Call(BERN)]),
        (f"Let me see. {WEATHER} Done.", [Text("Let me see. "), Call(BERN), Text(" Done.")]),
        (f"{WEATHER}; {WEATHER}\n", [Call(BERN), Call(BERN)]),
        (f"{WEATHER}\n{WEATHER}", [Call(BERN), Call(BERN)]),
        (f"[{WEATHER}, {WEATHER}]", [Call(BERN), Call(BERN)]),
        (
            "[weather(town='Bern'), add(a=1, b=[2, {'c': -3}])]",
            [Call(BERN), Call(ToolCall("add", {"a": 1, "b": [2, {"c": -3}]}))],
        ),
        ("So:\n[now()]", [Text("So:\n"), Call(ToolCall("now", {}))]),
        ("[now()] \t\nSo.", [Call(ToolCall("now", {})), Text(" \t\nSo.")]),
        (f"[now()] {WEATHER}", [Call(ToolCall("now", {})), Call(BERN)]),
        ("[clock.now()]\n", [Call(ToolCall("clock.now", {}))]),
        ('<function=weather>{"town": "Bern"}</function>', [Call(BERN)]),
        ('<function=weather> {"town": "Bern"}', [Call(BERN)]),
        ('A <function=weather>{"town": "Bern"} B', [Text("A "), Call(BERN), Text(" B")]),
        ('<function=add>{"a": "</function>}"}</function>!', [Call(ToolCall("add", {"a": "</function>}"})), Text("!")]),
        ('{"name": "add", "parameters": {"a": "}{\\"`"}}', [Call(ToolCall("add", {"a": '}{"`'}))]),
        (f"`x`{WEATHER}`y`", [Text("`x`"), Call(BERN), Text("`y`")]),
        (f"```py\nx\n```\n{WEATHER}", [Text("```py\nx\n```\n"), Call(BERN)]),
    ],
)
def test_calls_without_the_tag(reply, events):
    assert parse(reply) == events
    assert parse(*reply) == events
    assert all(event.call.form != "json" for event in parse(reply) if isinstance(event, Call))


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "{}",
        "Hello {name}, [1, 2] < 3; `{",
        "if (a < b) { return [weather]; }",
        '{"name": "Alice", "age": 3}',
        '{"name": "other", "parameters": {}}',
        '{"answer": {"name": "weather", "parameters": {}}}',
        '{"parameters": {"alpha": 0.1}}',
        f"```json\n{WEATHER}\n```",
        f"Write `{WEATHER}` to call it.",
        f"[1, {WEATHER}]",
        'The list [weather(town="Bern")] in a sentence',
        "[weather] and [nothing()]",
        "<function=other>{}</function> <func <function>",
        "weather(town='Bern')",
        "<|python_tag|>brave_search.call(query=1)",
        '{"name": ' + " " * 500 + '"weather", "parameters": {}}',
    ],
)
def test_what_is_no_call_stays_text(reply):
    assert parse(reply) == ([Text(reply)] if reply else [])
    assert parse(reply, tools=()) == parse(reply)


@pytest.mark.parametrize(
    ("reply", "text", "reason"),
    [
        ('{"name": "weather", "parameters": {"town": }}', None, "not JSON"),
        ('{"name": "weather", "parameters": [1]}', None, "no 'parameters'"),
        ('{"name": "weather", "parameters": {"town": "Be', None, "ends inside"),
        ('{"type": "function", "name": "other", "parameters": {}}', None, "no tool 'other'"),
        ("[weather(Bern)]", None, "keyword arguments"),
        ("[weather(town=open('x'))]", None, "keyword arguments"),
        ("[now(), other()]", None, "no tool 'other'"),
        ("[now(", None, "ends inside"),
        ('<function=weather>{"town": Bern}</function>', None, "not JSON"),
        ('<function=weather>{"town"', None, "ends inside"),
        ("<function=weather>Bern</function>", "<function=weather>", "not a JSON object"),
        (f"<function=weather>{' ' * 500}", "<function=weather>", "not a JSON object"),
        ("[now()](docs/now.md) is a link", "[now()]", "on its line"),
        (f"[{WEATHER}] was my idea", f"[{WEATHER}]", "on its line"),
        ('{"name": "weather", "parameters": {"town": "a", "town": "b"}}', None, "'town' is written twice"),
        ('{"name": "weather", "parameters": {"town": "\\ud83d"}}', None, "half a surrogate pair"),
        ('{"name": "weather", "parameters": {"\\ud83d": 1}}', None, "half a surrogate pair"),
        ('{"name": "weather", "parameters": {"town": NaN}}', None, "no JSON value"),
        ('{"name": "weather", "parameters": {"town": -1e999}}', None, "no JSON value"),
        ('{"name": "weather", "parameters": {"town": ' + "[" * 101 + "]" * 101 + "}}", None, "nested more than 100"),
        ("[add(a=1, a=2)]", None, "keyword arguments"),
        ("[add(a='\\ud83d')]", None, "half a surrogate pair"),
        ("[add(a=1e999)]", None, "no JSON value"),
    ],
)
def test_malformed_calls_are_text_with_a_reason(reply, text, reason):
    events = parse("So: \n", reply)
    assert "".join(event.text for event in events) == "So: \n" + reply
    assert isinstance(events[1], Malformed)
    assert events[1].text == (text or reply)
    assert reason in events[1].reason


@pytest.mark.parametrize(
    ("body", "calls"),
    [
        (WEATHER, [BERN]),
        (f"{WEATHER}; {WEATHER}", [BERN, BERN]),
        (json.dumps(json.loads(WEATHER), indent=4), [BERN]),
        ("[f(a=1)]", [ToolCall("f", {"a": 1})]),
        ('<function=f>{"a": 1}</function>', [ToolCall("f", {"a": 1})]),
        ('<function=f>{"a": 1}', [ToolCall("f", {"a": 1})]),
        ("brave_search.call( query = 'a' )", [ToolCall("brave_search", {"query": "a"})]),
        ("[f(x) for x in range(3)]", [ToolCall("code_interpreter", {"code": "[f(x) for x in range(3)]"})]),
        ("{1: 2}[1]", [ToolCall("code_interpreter", {"code": "{1: 2}[1]"})]),
        ("[1, 2]\nprint(3)", [ToolCall("code_interpreter", {"code": "[1, 2]\nprint(3)"})]),
        ('brave_search.call(query="a \'b\' \\"c\\"")', [ToolCall("brave_search", {"query": "a 'b' \"c\""})]),
        ("wolfram_alpha.call(query='2 + 2')", [ToolCall("wolfram_alpha", {"query": "2 + 2"})]),
        ("print(7)\n", [ToolCall("code_interpreter", {"code": "print(7)\n"})]),
    ],
)
def test_behind_the_tag_every_name_is_called(body, calls):
    assert parse("Wait.", None, body, tools=()) == [Text("Wait."), *map(Call, calls)]
    assert parse(None, *body) == [*map(Call, calls)]


def test_a_second_tag_begins_a_second_call():
    assert parse(None, WEATHER, None, "{") == [
        Call(BERN),
        Malformed("{", parse(None, "{")[0].reason, tagged=True),
    ]


scraps = st.sampled_from(
    [
        WEATHER,
        "{",
        "}",
        "[",
        "]",
        "`",
        "```",
        "\n",
        "\n\n",
        '"',
        "<function=weather>",
        "</function>",
        '{"a": 1}',
        "[now()",
        "'",
        '{"name": "add"',
        ', "parameters": {}}',
        "; ",
        "]\n",
        "](",
        " ",
        "[now()]",
        "text ",
        "<",
        '{"type": "function",',
        "\\",
        None,
    ]
)


@settings(deadline=None, max_examples=300)
@given(st.lists(scraps | st.text(max_size=5), max_size=12), st.data())
def test_the_cuts_change_nothing_and_no_text_is_lost(pieces, data):
    whole, merged = [], []
    for piece in pieces:
        if piece is None or not merged or merged[-1] is None:
            merged.append(piece)
        else:
            merged[-1] += piece
    for piece in merged:
        if piece is None:
            whole.append(None)
            continue
        while piece:
            cut = data.draw(st.integers(1, len(piece)))
            whole.append(piece[:cut])
            piece = piece[cut:]
    events = parse(*merged)
    assert parse(*whole) == events
    assert parse(*(c for p in merged for c in ([None] if p is None else p))) == events
    if not any(isinstance(event, Call) for event in events):
        assert "".join(event.text for event in events) == "".join(piece for piece in merged if piece is not None)


@settings(deadline=None)
@given(st.text(max_size=30))
def test_ids_of_a_reply_give_the_same_events_whatever_bytes_they_cut(tokenizer, town):
    call = ToolCall("weather", {"town": f"{town}🦙"}, "bare")
    stream = ReplyStream(tokenizer, TOOLS)
    ids = [tokenizer.encode(character) for character in f"Ünd {call.text()} é"]
    events = [event for token in chain.from_iterable(ids) for event in stream.push(token)]
    assert joined([*events, *stream.finish()]) == [Text("Ünd "), Call(call), Text(" é")]
    spelled = tokenizer.encode("<|python_tag|>now()")
    events = [event for token in spelled for event in stream.push(token)]
    assert joined([*events, *stream.finish()]) == [Text("<|python_tag|>now()")]
    tagged = [tokenizer.python_tag, *tokenizer.encode("now()"), tokenizer.eom]
    events = [event for token in tagged for event in stream.push(token)]
    assert [*events, *stream.finish()] == [Call(ToolCall("code_interpreter", {"code": "now()"}))]
    strange = [tokenizer.special("<|start_header_id|>"), *tokenizer.encode("a"), tokenizer.eot]
    events = [event for token in strange for event in stream.push(token)]
    assert [*events, *stream.finish()] == [Malformed("", "<|start_header_id|> inside the reply"), Text("a")]


MILLION = 1_000_000


@pytest.mark.slow
@pytest.mark.parametrize(
    "reply",
    [
        ['{"name": "weather", ' + "{" * MILLION],
        ['{"name": "weather", "parameters": {"town": "' + "x" * MILLION],
        ["<function=weather>" + " " * MILLION],
        ['<function=weather>{"town": "Bern"}' + " " * MILLION],
        [WEATHER + " " * MILLION],
        ["[now(" + "(" * MILLION],
        ["[now()]" + " " * MILLION],
        ["{" * MILLION],
        ["[weathe\n" * (MILLION // 8)],
        ["<function=weathe" * (MILLION // 16)],
        ["`a``" * (MILLION // 4)],
        ["{" + " " * 150] * (MILLION // 151),
        [None, "[" * MILLION],
        [None, '{"a":' * (MILLION // 5)],
        [None, "[f(a=" + "-" * MILLION + "1)]"],
        [None, "[f(a=1" + "+1" * (MILLION // 2) + ")]"],
        [None, "brave_search.call(query=" + " " * MILLION + ")x"],
        [None, "brave_search.call(query=" + ") " * (MILLION // 2) + ")x"],
    ],
    ids=lambda reply: "|" if reply[0] is None else reply[0][:18],
)
def test_a_megabyte_of_nonsense_is_read_in_linear_time(reply):
    # A parser that takes time with the square of the length would need many minutes for each.
    events = parse(*reply)
    if isinstance(events[0], Call):
        assert len(events) == 1
    else:
        assert "".join(event.text for event in events) == "".join(piece for piece in reply if piece)


def test_python_lists_are_read_not_run():
    assert read_list("[f(a=(1, 2), b=None, c=True)]") == [ToolCall("f", {"a": [1, 2], "b": None, "c": True})]
    assert read_list("[f.g()]") == [ToolCall("f.g", {})]
    for text in ("[f(**{})]", "[f().g()]", "f()", "[f(a={1: 2})]", "[f(a=b'x')]", "[f(a=1j)]", "[" * 50_000, "[f(a=1)"):
        assert isinstance(read_list(text), str)
