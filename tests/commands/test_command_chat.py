"""`herd chat` through pipes and interruptions, against scripted answers and a tiny real model."""

import io
import json

import pytest

from herd.commands.chat import chat, converse
from herd.commands.chat_lines import Lines
from herd.commands.chat_screen import Plain, split_blocks
from herd.commands.chat_talk import Answers, Conversation
from herd.commands.chat_tools import calculate
from herd.errors import ArtifactError, InputError, SettingError
from herd.generate import Sampling
from herd.text import Message, Tokenizer, ToolCall, encode_dialogue, encode_prompt
from herd.text.datasets import load_dialogues
from herd.text.dialogues import read_dialogues
from herd.text.tools import prepare


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train([])


class Script(Answers):
    """A model that gives the next answer of a list and remembers what it was asked."""

    def __init__(self, tokenizer, answers):
        self.tokenizer, self.answers, self.requests = tokenizer, list(answers), []

    def stream(self, request):
        self.requests.append(request)
        answer = self.answers.pop(0)
        for token in answer if isinstance(answer, list) else [*self.tokenizer.encode(answer), self.tokenizer.eot]:
            if isinstance(token, BaseException):
                raise token
            yield token


def talk(tokenizer, lines, answers, context=10_000, **options):
    script, out = Script(tokenizer, answers), io.StringIO()
    conversation = Conversation(script, tokenizer, Sampling(seed=7), context, Plain(out), **options)
    typed = lines if hasattr(lines, "readline") else io.StringIO("".join(f"{x}\n" for x in lines))
    converse(conversation, Lines(typed, out), conversation.screen)
    return out.getvalue(), script, conversation


def test_turns_keep_their_history(tokenizer):
    text, script, _ = talk(tokenizer, ["hi", "", "and?"], ["Grüezi 🦙", "no"], system="Be brief.")
    assert text == "Grüezi 🦙\nno\n"
    history = [Message("system", "Be brief."), Message("user", "hi")]
    assert script.requests[0].prompt == tuple(encode_prompt(tokenizer, history))
    history += [Message("assistant", "Grüezi 🦙"), Message("user", "and?")]
    assert script.requests[1].prompt == tuple(encode_prompt(tokenizer, history))
    assert [r.sampling.seed for r in script.requests] == [7, 8]


def test_commands(tokenizer):
    lines = ["a", "/reset", "/system Be kind.", "b", "/system", "c", "/nonsense", "/help", "/quit", "d"]
    text, script, _ = talk(tokenizer, lines, ["A", "B", "C"], system="Be brief.")
    expected = [
        [Message("system", "Be brief."), Message("user", "a")],
        [Message("system", "Be kind."), Message("user", "b")],
        [Message("user", "b"), Message("assistant", "B"), Message("user", "c")],
    ]
    assert [r.prompt for r in script.requests] == [tuple(encode_prompt(tokenizer, m)) for m in expected]
    assert "/nonsense is no command" in text
    assert "/tool TEXT" in text


def test_tool_calls_are_shown_and_answered(tokenizer):
    call = '{"type": "function", "name": "add", "parameters": {"a": 1}}'
    ids = [tokenizer.special("<|python_tag|>"), *tokenizer.encode(call), tokenizer.eom]
    text, script, conversation = talk(tokenizer, ["1+1?", "/tool 2"], [ids, "Two."])
    assert text.startswith(f"[calls a tool] {call}\n[/tool RESULT answers the call]\nTwo.\n")
    assert [m.role for m in conversation.history] == ["user", "assistant", "ipython", "assistant"]
    assert script.requests[1].prompt == tuple(encode_prompt(tokenizer, conversation.history[:3]))


def calls(tokenizer, name, **parameters):
    text = ToolCall(name, parameters).text()
    return [tokenizer.special("<|python_tag|>"), *tokenizer.encode(text), tokenizer.eom]


def test_tools_of_herd_are_carried_out_and_the_model_goes_on(tokenizer):
    answers = [calls(tokenizer, "calculator", expression="6 * 7"), "It is 42."]
    text, script, conversation = talk(tokenizer, ["/tools on", "6 times 7?"], answers)
    assert "[the model may call calculator, current_time]" in text
    assert "[calculator gives 42]\nIt is 42.\n" in text
    told = prepare([Message("user", "6 times 7?")], conversation.tools.definitions)
    assert script.requests[0].prompt == tuple(encode_prompt(tokenizer, told))
    assert conversation.history[2] == Message("ipython", "42")


def test_errors_of_a_tool_are_its_result(tokenizer):
    answers = [calls(tokenizer, "calculator", expression="1 / 0"), "Hm."]
    assert "Error: division by zero" in talk(tokenizer, ["/tools on", "x"], answers)[0]
    answers = [calls(tokenizer, "calculator", wrong="1"), "Hm."]
    assert "Error: calculate() got an unexpected keyword" in talk(tokenizer, ["/tools on", "x"], answers)[0]


def test_a_model_that_only_calls_is_stopped(tokenizer):
    answers = [calls(tokenizer, "calculator", expression="1") for _ in range(9)]
    text, _, _ = talk(tokenizer, ["/tools on", "x", "/retry"], [*answers, "At last."])
    assert "[8 calls in a row; /retry lets the model go on]" in text
    assert text.endswith("At last.\n")


def test_tools_of_a_file_are_told_and_the_user_answers(tokenizer, tmp_path):
    weather = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    (tmp_path / "tools.json").write_text(json.dumps([weather]))
    (tmp_path / "bad.json").write_text('[{"title": "x"}]')
    lines = ["/tools on", f"/tools {tmp_path}/tools.json", "and?", "/tool sunny", "/tools off", "/tools"]
    lines += [f"/tools {tmp_path}/bad.json", "/tools nowhere.json", "/tool x"]
    answer = '{"name": "weather", "parameters": {"town": "Bern"}}'  # without the tag, because it is a known name
    text, script, conversation = talk(tokenizer, lines, [answer, "Sunny."])
    assert "[the model may call calculator, current_time, weather]" in text
    assert "[/tool RESULT answers the call]" in text
    assert '"name": "weather"' in tokenizer.decode(script.requests[0].prompt)
    assert [m.role for m in conversation.history] == ["user", "assistant", "ipython", "assistant"]
    assert text.count("[no tools]") == 2
    assert "a tool is an object with a 'name'" in text
    assert "nowhere.json" in text
    assert "no call waits for an answer" in text


def test_a_saved_conversation_is_read_by_training_and_goes_on_when_loaded(tokenizer, tmp_path):
    path = tmp_path / "talk.jsonl"
    lines = ["/tools on", "6 times 7?", f"/save {path}", "more", f"/save {path}"]
    answers = [calls(tokenizer, "calculator", expression="6*7"), "42", "more"]
    text, _, conversation = talk(tokenizer, lines, answers, system="Be brief.")
    assert "6 messages are saved" in text
    (dialogue,) = read_dialogues(path)
    assert dialogue == conversation.tools.prepare(conversation.messages())
    assert load_dialogues(path).records
    assert encode_dialogue(tokenizer, dialogue).n_trained > 0

    lines = [f"/load {path}", "again", "/save", f"/save {path}", f"/load {path} 2", "/load", f"/load {tmp_path}/none"]
    text, again, loaded = talk(tokenizer, lines, ["yes"])
    assert loaded.system == "Be brief."
    assert loaded.history[:6] == conversation.history
    expected = conversation.tools.prepare([*conversation.messages(), Message("user", "again")])
    assert again.requests[0].prompt == tuple(encode_prompt(tokenizer, expected))
    assert "is there already" in text  # what another session wrote is not written over
    assert "holds 1 dialogues" in text
    assert text.count("no file is named") == 2


def test_answers_are_tried_again_with_another_seed(tokenizer):
    text, script, conversation = talk(tokenizer, ["/retry", "hi", "/retry"], ["one", "two"])
    assert "[nothing was said yet]" in text
    assert script.requests[0].prompt == script.requests[1].prompt
    assert [r.sampling.seed for r in script.requests] == [7, 8]
    assert [m.content for m in conversation.history] == ["hi", "two"]


def test_a_failed_retry_leaves_what_was_there(tokenizer):
    _, _, conversation = talk(tokenizer, ["hi", "/retry"], ["one", [InputError("odd")]])
    assert [m.content for m in conversation.history] == ["hi", "one"]


def test_settings_are_changed_and_told(tokenizer):
    lines = ["/set temperature 0.1", "/set top_k 5", "hi", "/set", "/set top_p 7", "/set seed x", "/set warmth 1"]
    lines += ["/set seed", "/set top_k default", "/reset", "more"]
    text, script, _ = talk(tokenizer, lines, ["A", "B"])
    assert (script.requests[0].sampling.temperature, script.requests[0].sampling.top_k) == (0.1, 5)
    assert (script.requests[1].sampling.temperature, script.requests[1].sampling.top_k) == (0.1, 0)
    assert "[temperature is 0.1]" in text
    assert "top_k                5" in text
    for part in ("give a share over 0", "'x' is no whole number", "there is no setting 'warmth'", "[seed is 7]"):
        assert part in text


def test_a_stop_text_ends_an_answer_and_is_no_part_of_it(tokenizer, tmp_path):
    path = tmp_path / "talk.jsonl"
    lines = ['/set stop ["END", "\\n\\n"]', "hi", "and?", f"/save {path}", "/reset", "again", "/set stop []", "all"]
    answers = ["One END two", "A\n\n\nB", "END", "no END here"]
    text, script, conversation = talk(tokenizer, lines, answers)
    assert script.requests[0].sampling.stop == ("END", "\n\n")
    assert script.requests[0].sampling.stop_ids == tokenizer.stop_ids
    for part in (
        '[stop is ["END", "\\n\\n"]]\nOne \nA\n',
        '[the answer begins with the stop text "END"]',
        "[stop is []]\n",
    ):
        assert part in text
    assert "cut off" not in text
    assert "two" not in text
    assert text.endswith("no END here\n")
    saved = json.loads(path.read_text())
    assert [message["content"] for message in saved["messages"]] == ["hi", "One", "and?", "A"]
    assert saved["sampling"] == {"stop": ["END", "\n\n"]}
    _, again, loaded = talk(tokenizer, [f"/load {path}", "go on"], ["x END"])
    assert loaded.sampling.stop == again.requests[0].sampling.stop == ("END", "\n\n")
    assert loaded.history[-1] == Message("assistant", "x")
    assert conversation.history[-1] == Message("assistant", "no END here")


def test_a_stop_text_is_found_whatever_way_tokens_cut_it(tokenizer):
    pieces = [token for text in ("ab", "c🦙", "de\nUs", "er", ": more") for token in tokenizer.encode(text)]
    for stop, said in (("User:", "abc🦙de"), ("🦙", "abc"), ("c🦙d", "ab"), ("nothing", "abc🦙de\nUser: more")):
        text, _, conversation = talk(tokenizer, [f"/set stop {stop}", "hi"], [[*pieces, tokenizer.eot]])
        assert conversation.history[-1].content == said
        assert f"{said}\n" in text


def test_a_stop_text_inside_a_call_leaves_no_call(tokenizer):
    call = calls(tokenizer, "calculator", expression="1 + 1")
    text, _, conversation = talk(tokenizer, ["/tools on", "/set stop 1 +", "x"], [call])
    assert conversation.history[-1].tool_calls == ()
    assert "not JSON" in text


def test_other_settings_of_the_server_are_set_too(tokenizer):
    lines = ['/set logit_bias {"65": -100, "7": 2.5}', "/set stop_token_ids 5, 6", "/set", "hi"]
    lines += [
        "/set stop_token_ids x",
        "/set logit_bias [1]",
        '/set logit_bias {"1": 1e9}',
        "/set stop [1]",
        '/set stop ""',
    ]
    lines += ["/set temperature nan", "/set stop_token_ids default", "more"]
    text, script, _ = talk(tokenizer, lines, ["A", "B"])
    how = script.requests[0].sampling
    assert how.logit_bias == ((7, 2.5), (65, -100))
    assert how.stop_ids == (*tokenizer.stop_ids, 5, 6)
    assert script.requests[1].sampling.stop_ids == tokenizer.stop_ids
    assert script.requests[1].sampling.logit_bias == how.logit_bias
    assert 'logit_bias           {"7": 2.5, "65": -100}' in text
    for part in (
        "x is no list of ids",
        "[1] is no bias",
        "from -100 to 100",
        "holds other than texts",
        "an empty text",
    ):
        assert part in text
    assert "temperature is nan" in text


def test_settings_of_a_file_that_mean_nothing_leave_the_conversation_as_it_was(tokenizer, tmp_path):
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    for number, wrong in enumerate(({"warmth": 1}, {"top_k": -1}, {"stop": [3]}, "hot")):
        path = tmp_path / f"{number}.jsonl"
        path.write_text(json.dumps({"messages": messages, "sampling": wrong}) + "\n")
        _, _, conversation = talk(tokenizer, ["/set top_k 3", "hi", f"/load {path}"], ["one"])
        assert [m.content for m in conversation.history] == ["hi", "one"]
        assert conversation.sampling.top_k == 3


def test_a_model_steers_no_terminal(tokenizer):
    code = ToolCall("code_interpreter", {"code": "print('\x1b[2J')"}).text()
    ids = [tokenizer.special("<|python_tag|>"), *tokenizer.encode(code), tokenizer.eom]
    out = io.StringIO()
    conversation = Conversation(
        Script(tokenizer, ["\x1b]0;title\x07 x\x9b2J", ids]), tokenizer, Sampling(), 10_000, Plain(out, terminal=True)
    )
    converse(conversation, Lines(io.StringIO("a\nb\n"), out), conversation.screen)
    assert "calls a tool" in out.getvalue()
    assert not set(out.getvalue()) & {chr(code) for code in (*range(9), *range(11, 32), *range(127, 160))}


def test_a_pipe_gets_no_escape_codes_and_no_figures(tokenizer):
    text, _, _ = talk(tokenizer, ["hi"], ["**bold** and\n\n# head"])
    assert text == "**bold** and\n\n# head\n"


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("2^100", str(2**100)),
        ("-2 ** 2", "-4"),
        ("7 / 2", "3.5"),
        ("8 / 2", "4"),
        ("0.1 + 0.2", "0.3"),
        ("sqrt(2) * max(1, 3)", "4.2426406871193"),
    ],
)
def test_arithmetic(expression, value):
    assert calculate(expression) == value


@pytest.mark.parametrize(
    "expression",
    ["", "1 +", "1 / 0", "9 ** 9 ** 9", "2 ** 1e9", "__import__('os')", "(1).real", "x", "True", "[1]", "sqrt(-1)"],
)
def test_what_is_no_arithmetic_is_an_error_and_nothing_else(expression):
    with pytest.raises((ValueError, SyntaxError, ArithmeticError)):
        calculate(expression)


def test_an_answer_is_drawn_block_by_block():
    text = "# Head\n\nA paragraph\nof two lines\n\n- a\n\n- b\n\n```\ncode\n\nmore\n```\nlast"
    for at in range(len(text) + 1):
        whole, rest = split_blocks(text[:at])
        assert "".join(whole) + rest == text[:at]
    whole, rest = split_blocks(text)
    assert [part.strip().splitlines()[0] for part in whole] == ["# Head", "A paragraph", "- a", "```"]
    assert rest == "last"


def test_malformed_calls_are_said(tokenizer):
    ids = [tokenizer.special("<|python_tag|>"), *tokenizer.encode("{oops"), tokenizer.eom]
    assert "not JSON" in talk(tokenizer, ["x"], [ids])[0]


def test_ctrl_c_stops_the_answer_and_keeps_what_was_said(tokenizer):
    half = [*tokenizer.encode("One, tw"), KeyboardInterrupt()]
    text, script, _ = talk(tokenizer, ["count", "go on"], [half, "three"])
    assert text == "One, tw\n[stopped; Ctrl-C once more leaves]\nthree\n"
    said = [Message("user", "count"), Message("assistant", "One, tw"), Message("user", "go on")]
    assert script.requests[1].prompt == tuple(encode_prompt(tokenizer, said))


class Keys(io.StringIO):
    """Input in which a None is a Ctrl-C."""

    def __init__(self, lines):
        super().__init__()
        self.lines = list(lines)

    def readline(self):
        line = self.lines.pop(0)
        if line is None:
            raise KeyboardInterrupt
        return line


def test_second_ctrl_c_leaves(tokenizer):
    half = [*tokenizer.encode("On"), KeyboardInterrupt()]
    keys = Keys(["count\n", None, "never read\n"])
    talk(tokenizer, keys, [half])
    assert keys.lines == ["never read\n"]
    keys = Keys([None, None, "never read\n"])
    talk(tokenizer, keys, [])
    assert keys.lines == ["never read\n"]


def test_a_line_between_resets_the_count(tokenizer):
    keys = Keys([None, "hi\n", None, "bye\n", ""])
    text, script, _ = talk(tokenizer, keys, ["A", "B"])
    assert len(script.requests) == 2
    assert text.count("once more leaves") == 2


def test_a_full_context_is_said_and_nothing_is_cut(tokenizer):
    text, script, conversation = talk(tokenizer, ["hi", "x" * 200, "ho"], ["A", "B"], context=150)
    assert "[not sent: with this line the conversation has" in text
    assert "context is 150" in text
    assert [m.content for m in conversation.history] == ["hi", "A", "ho", "B"]
    assert all(len(r.prompt) < 150 for r in script.requests)


def test_answers_without_an_end_are_said_to_be_cut(tokenizer):
    assert "[cut off after 3 tokens" in talk(tokenizer, ["x"], [tokenizer.encode("abc")])[0]
    room = 60 - len(encode_prompt(tokenizer, [Message("user", "x")]))
    assert "context of 60 tokens is full" in talk(tokenizer, ["x"], [tokenizer.encode("a" * room)], context=60)[0]


def test_an_error_costs_one_line_only(tokenizer):
    text, _, conversation = talk(tokenizer, ["\ud83e", "x", "y"], [[InputError("odd", mend="stop")], "Y"])
    assert "UTF-8" in text
    assert "odd" in text
    assert [m.content for m in conversation.history] == ["y", "Y"]


def test_end_of_input_without_newline(tokenizer):
    text, _, _ = talk(tokenizer, io.StringIO("hi"), ["A"])
    assert text == "A\n"


def test_settings_and_folders_are_checked_before_anything_is_loaded(tmp_path):
    with pytest.raises(SettingError, match="temperature"):
        chat(tmp_path, temperature=-1)
    with pytest.raises(ArtifactError, match="no model is here"):
        chat(tmp_path, stdin=io.StringIO(""), stdout=io.StringIO())


def saved(folder):
    from herd.llama.config import LlamaConfig
    from herd.llama.init import init_weights
    from herd.llama.model import Llama
    from herd.weights.hf import save_model

    tokenizer = Tokenizer.train([])
    model = Llama(LlamaConfig(tokenizer.vocab_size, 16, 1, 2, 1, 32, max_seq_len=128))
    init_weights(model, 1)
    save_model(folder, model, model.config, tokenizer=tokenizer, herd={})
    return folder


def test_with_a_model_from_disk(tmp_path):
    model = saved(tmp_path / "model")
    answers = []
    for _ in range(2):
        out = io.StringIO()
        chat(model, max_tokens=5, seed=3, stdin=io.StringIO("hi\nho\n"), stdout=out)
        answers.append(out.getvalue())
    assert answers[0] == answers[1]
    assert answers[0].count("\n") >= 2


def test_a_model_that_was_not_made_to_answer_is_refused_before_anything_is_typed(tmp_path, monkeypatch):
    model = saved(tmp_path / "model")
    monkeypatch.setattr(Tokenizer, "can_chat", False)
    with pytest.raises(InputError, match="no chat format") as error:
        chat(model, stdin=io.StringIO("hi\n"), stdout=io.StringIO())
    assert "/v1/completions" in error.value.mend
