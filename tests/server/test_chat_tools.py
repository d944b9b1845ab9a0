"""Tools and reasoning of POST /v1/chat/completions, whole and streamed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.types import Thinking
from server.chat.thinking import KNOWN, Marks
from support.fake_engine import FakeEngine, ids, make_app, tokenizer
from support.http import CHAT, client, error_of, events, user
from support.tools import ARGUMENTS, CALLS, PARAMETERS, VALUE
from support.vocabularies import models_dir

pytestmark = pytest.mark.asyncio

WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}
NOW = {"type": "function", "function": {"name": "now"}}
TOOLS = [WEATHER, NOW]
QWEN, R1, LLAMA, GPT_OSS = (
    "Qwen-Qwen3-0.6B",
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B",
    "meta-llama-Llama-3.1-8B-Instruct",
    "openai-gpt-oss-120b",
)


def app(engine: FakeEngine, template: str | None = QWEN, **fields: Any) -> Any:
    if template is not None:
        fields["chat_template"] = models_dir() / "templates" / f"{template}.jinja"
    return make_app(engine, **fields)


def answering(text: str, **fields: Any) -> FakeEngine:
    return FakeEngine(text, n_ctx=8192, **fields)


async def ask(engine: FakeEngine, template: str | None = QWEN, **body: Any) -> dict[str, Any]:
    engine.state = "ready"  # also after another application stopped it
    async with client(app(engine, template)) as http:
        response = await http.post(CHAT, json={"messages": user("Hi"), **body})
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def deltas(engine: FakeEngine, template: str | None = QWEN, **body: Any) -> list[dict[str, Any]]:
    async with client(app(engine, template)) as http:
        response = await http.post(CHAT, json={"messages": user("Hi"), "stream": True, **body})
    chunks = events(response.text)
    finish = [chunk["choices"][0]["finish_reason"] for chunk in chunks if chunk["choices"]]
    assert finish[:-1] == [None] * (len(finish) - 1)
    return [*(chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]), {"finish": finish[-1]}]


async def test_calls_in_a_whole_response():
    body = await ask(answering(f"Let me see.\n{CALLS['hermes']}"), tools=TOOLS)
    (choice,) = body["choices"]
    message = choice["message"]
    assert choice["finish_reason"] == "tool_calls"
    assert message["content"] == "Let me see."
    first, second = message["tool_calls"]
    assert first["type"] == second["type"] == "function"
    assert first["function"] == {"name": "get_weather", "arguments": ARGUMENTS}
    assert second["function"] == {"name": "now", "arguments": "{}"}
    assert first["id"] != second["id"]
    assert first["id"].startswith("call_")
    assert (await ask(answering(CALLS["hermes"]), tools=TOOLS))["choices"][0]["message"]["content"] is None


async def test_order_of_deltas():
    first, *middle, last, finish = await deltas(answering(CALLS["hermes"]), tools=TOOLS)
    assert first == {"role": "assistant", "content": None}
    assert last == {}
    assert finish == {"finish": "tool_calls"}
    calls: dict[int, list[dict[str, Any]]] = {}
    for delta in middle:
        assert set(delta) == {"tool_calls"}
        for call in delta["tool_calls"]:
            calls.setdefault(call["index"], []).append(call)
    assert set(calls) == {0, 1}
    for i, (name, value) in enumerate((("get_weather", VALUE), ("now", {}))):
        begin, *rest = calls[i]
        assert begin["id"]
        assert begin["type"] == "function"
        assert begin["function"]["name"] == name
        assert all(
            set(call) == {"index", "function"} and set(call["function"]) == {"arguments"} for call in rest
        )
        assert json.loads("".join(call["function"]["arguments"] for call in calls[i])) == value
    assert len(calls[0]) > 5  # as they come


async def test_every_choice_has_its_own_calls():
    body = await ask(answering(CALLS["hermes"]), tools=TOOLS, n=2)
    ids = [call["id"] for choice in body["choices"] for call in choice["message"]["tool_calls"]]
    assert len(set(ids)) == 4


async def test_the_template_shows_the_tools():
    engine = answering("x")
    await ask(engine, tools=TOOLS)
    await ask(engine, tools=TOOLS, tool_choice="none")
    prompts = [tokenizer().decode(request.prompt) for request in engine.seen]
    assert '"name": "get_weather"' in prompts[0]
    assert prompts[0] == prompts[1]


async def test_without_a_choice_of_tools_calls_are_text():
    body = await ask(answering(CALLS["hermes"]), tools=TOOLS, tool_choice="none")
    assert body["choices"][0]["message"]["content"] == CALLS["hermes"]
    assert body["choices"][0]["finish_reason"] == "stop"
    assert (await ask(answering(CALLS["hermes"])))["choices"][0]["message"]["content"] == CALLS["hermes"]


async def test_tools_that_are_not_allowed_are_not_called():
    allowed = {"mode": "auto", "tools": [{"type": "function", "function": {"name": "now"}}]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    body = await ask(answering(CALLS["hermes"]), tools=TOOLS, tool_choice=choice)
    assert [call["function"]["name"] for call in body["choices"][0]["message"]["tool_calls"]] == ["now"]


async def test_one_call_at_most():
    body = await ask(answering(CALLS["hermes"]), tools=TOOLS, parallel_tool_calls=False)
    assert len(body["choices"][0]["message"]["tool_calls"]) == 1
    llama = await ask(answering(CALLS["llama3"]), LLAMA, tools=TOOLS)  # its template shows only one
    assert len(llama["choices"][0]["message"]["tool_calls"]) == 1


async def test_results_go_back_to_the_model():
    engine = answering("It rains.")
    call = {"id": "call_7", "type": "function", "function": {"name": "get_weather", "arguments": ARGUMENTS}}
    talk = [
        *user("Weather?"),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_7", "content": [{"type": "text", "text": "rain"}]},
    ]
    await ask(engine, messages=talk, tools=TOOLS)
    prompt = tokenizer().decode(engine.seen[0].prompt)
    assert (
        f'<tool_call>\n{{"name": "get_weather", "arguments": {json.dumps(VALUE, ensure_ascii=False)}}}'
        in prompt
    )
    assert "<tool_response>\nrain\n</tool_response>" in prompt


async def test_a_model_without_tools_gets_them_described():
    engine = answering(CALLS["generic"])
    body = await ask(engine, None, tools=TOOLS)
    assert "You can call these tools" in tokenizer().decode(engine.seen[0].prompt)
    assert body["choices"][0]["finish_reason"] == "tool_calls"
    assert len(body["choices"][0]["message"]["tool_calls"]) == 2


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "code_interpreter"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"function": {"name": "f"}}]}, "tools[0].type"),
        ({"tools": [WEATHER, {"type": "function", "function": {"name": "a b"}}]}, "tools[1].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "x" * 129}}]}, "tools[0].function.name"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": []}}]},
            "tools[0].function.parameters",
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "string"}}}]},
            "tools[0].function.parameters",
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "strict": 1}}]},
            "tools[0].function.strict",
        ),
        ({"tools": [NOW, NOW]}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": f"f{i}"}} for i in range(257)]}, "tools"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "description": "x" * (1 << 20)}}]},
            "tools",
        ),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": "maybe"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": 5}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "custom"}}, "tool_choice.type"),
        ({"tools": TOOLS, "tool_choice": {"type": "function"}}, "tool_choice.function.name"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "allowed_tools"}}, "tool_choice.allowed_tools"),
        (
            {"tools": TOOLS, "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "x"}}},
            "tool_choice.allowed_tools.mode",
        ),
        (
            {"tools": TOOLS, "tool_choice": {"type": "allowed_tools", "allowed_tools": {"tools": []}}},
            "tool_choice.allowed_tools.tools",
        ),
        (
            {"tools": TOOLS, "tool_choice": {"type": "allowed_tools", "allowed_tools": {"tools": [{}]}}},
            "tool_choice.allowed_tools.tools[0].function.name",
        ),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"function_call": {"name": "f"}}, "function_call"),
        ({"reasoning_effort": "huge"}, "reasoning_effort"),
        ({"reasoning_format": "x"}, "reasoning_format"),
        ({"reasoning_budget": -2}, "reasoning_budget"),
        ({"reasoning_budget": 5, "thinking_budget_tokens": 6}, "reasoning_budget"),
        ({"chat_template_kwargs": {"enable_thinking": "no"}}, "chat_template_kwargs"),
        ({"continue_final_message": True}, "continue_final_message"),
        ({"continue_final_message": "x"}, "continue_final_message"),
    ],
)
async def test_bad_tools_and_switches_are_named(fields, param):
    engine = answering("x")
    async with client(app(engine)) as http:
        response = await http.post(CHAT, json={"messages": user("Hi"), **fields})
    assert error_of(response, 400)["param"] == param
    assert engine.seen == []


CALL = {"id": "a", "type": "function", "function": {"name": "now", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([{"role": "assistant", "tool_calls": [CALL]}], "messages[1].tool_calls"),
        ([{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}], "messages[2]"),
        ([{"role": "user", "content": "x", "tool_calls": [CALL]}], "messages[1]"),
        (
            [{"role": "assistant", "tool_calls": [{**CALL, "type": "custom"}]}, *user("x")],
            "messages[1].tool_calls[0].type",
        ),
        (
            [
                {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "f", "arguments": "{"}}]},
                *user("x"),
            ],
            "messages[1].tool_calls[0].function.arguments",
        ),
    ],
)
async def test_bad_turns_are_named(messages, param):
    async with client(app(answering("x"))) as http:
        response = await http.post(CHAT, json={"messages": [*user("Hi"), *messages]})
    assert error_of(response, 400)["param"] == param


async def test_arguments_may_be_an_object():
    call = {**CALL, "function": {"name": "now", "arguments": {"x": 1}}, "index": 0}
    body = await ask(
        answering("x"), messages=[*user("Hi"), {"role": "assistant", "tool_calls": [call]}, *user("x")]
    )
    assert "warnings" not in body


async def test_reasoning_is_split_off():
    text = "<think>\nThe user greets.\n</think>\n\nHello!"
    body = await ask(answering(text))
    message = body["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("Hello!", "The user greets.")
    thinking = len(ids("<think>\nThe user greets.\n</think>"))
    counted = body["usage"]["completion_tokens_details"]["reasoning_tokens"]
    assert abs(counted - thinking) <= 3
    first, *middle, last, finish = await deltas(answering(text))
    assert (first, last, finish) == ({"role": "assistant", "content": None}, {}, {"finish": "stop"})
    shown = [delta for delta in middle if any(delta.values())]
    assert "".join(delta.get("reasoning_content", "") for delta in shown) == "The user greets."
    assert "".join(delta.get("content", "") for delta in shown) == "Hello!"
    kinds = [next(iter(delta)) for delta in shown]
    assert kinds == sorted(kinds, reverse=True)  # reasoning first


async def test_reasoning_stays_in_the_content_if_asked():
    text = "<think>\nThe user greets.\n</think>\n\nHello!"
    body = await ask(answering(text), reasoning_format="none")
    assert body["choices"][0]["message"] == {"role": "assistant", "content": text, "refusal": None}


async def test_reasoning_that_the_prompt_begins():
    engine = answering("I see.\n</think>\n\nHello!")
    message = (await ask(engine, R1))["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("Hello!", "I see.")
    assert tokenizer().decode(engine.seen[0].prompt).endswith("<think>\n")


async def test_calls_behind_reasoning():
    body = await ask(answering(f"<think>Hm.</think>\n\n{CALLS['hermes']}"), tools=TOOLS)
    message = body["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == (None, "Hm.")
    assert len(message["tool_calls"]) == 2


async def test_channels():
    text = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant" + CALLS["harmony"]
    engine = answering(text)
    engine.tokenizer = _Ending(tokenizer())
    message = (await ask(engine, GPT_OSS, tools=TOOLS))["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == (None, "Hm.")
    assert [call["function"]["name"] for call in message["tool_calls"]] == ["get_weather"]  # one a turn
    final = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Hello!"
    engine.reply = ids(final)
    message = (await ask(engine, GPT_OSS))["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("Hello!", "Hm.")


MARKS = Marks("<|user|>", "<|end|>")  # which are tokens of the bundled model
MARKED = "{% for m in messages %}{{ m.content }}{% endfor %}{% if opened %}<|user|>\n{% endif %}{# <|end|> #}"


@pytest.fixture
def marked(tmp_path, monkeypatch):
    """An engine and an application of a model whose reasoning stands between tokens of their own."""
    monkeypatch.setattr("server.chat.thinking.KNOWN", (MARKS, *KNOWN))
    monkeypatch.setattr("server.chat.model.KNOWN", (MARKS, *KNOWN))
    file = tmp_path / "marked.jinja"
    file.write_text(MARKED, encoding="utf-8")
    engine = answering("x")
    engine.tokenizer = _Ending(tokenizer())

    def make(**options: Any) -> Any:
        engine.state = "ready"
        return make_app(engine, chat_template=file, **options)

    return engine, make


async def test_a_budget_reaches_the_engine(marked):
    engine, make = marked
    opened = {"chat_template_kwargs": {"opened": True}}
    async with client(make()) as http:
        for fields in (
            {"reasoning_budget": 16},
            {"reasoning_budget_tokens": 0, **opened},
            {"reasoning_effort": "none", **opened},
            {"thinking_budget_tokens": -1, **opened},
        ):
            await http.post(CHAT, json={"messages": user("Hi"), **fields})
    user_id, end_id = tokenizer().vocabulary.ids["<|user|>"], tokenizer().vocabulary.ids["<|end|>"]
    start, end = (user_id,), (end_id,)
    assert [request.thinking for request in engine.seen] == [
        Thinking(start=start, end=end, budget=16),
        Thinking(start=start, end=end, budget=0, opened=True),
        Thinking(start=start, end=end, budget=0, opened=True),
        None,
    ]


async def test_marks_that_are_no_tokens_are_as_they_stand_within_a_text():
    engine = answering("x")
    await ask(engine, R1, reasoning_budget=16)
    thinking = engine.seen[0].thinking
    assert thinking is not None
    assert b"".join(map(tokenizer().token_bytes, thinking.end)) == b"</think>"
    assert (thinking.budget, thinking.opened) == (16, True)


async def test_a_budget_without_reasoning_has_no_effect():
    engine = answering("x")
    body = await ask(engine, None, reasoning_budget=16)
    assert engine.seen[0].thinking is None
    assert [warning for warning in body["warnings"] if "budget" in warning]


async def test_the_answer_continues_the_last_message():
    engine = answering(" upon a time")
    body = await ask(engine, messages=[*user("A story"), {"role": "assistant", "content": "Once"}])
    assert tokenizer().decode(engine.seen[0].prompt).endswith("</think>\n\nOnce")
    assert body["choices"][0]["message"]["content"] == " upon a time"


async def test_special_tokens_of_the_format_are_seen_by_the_parser(marked):
    """`<|user|>` is a control token, which is no text otherwise."""
    engine, make = marked
    engine.reply = [*ids("<|user|>"), *ids("hm"), *ids("<|end|>"), *ids("yes"), *ids("<|user|>")]
    async with client(make()) as http:
        message = (await http.post(CHAT, json={"messages": user("Hi")})).json()["choices"][0]["message"]
        text = (await http.post("/v1/completions", json={"prompt": "Hi"})).json()["choices"][0]["text"]
    assert (message["content"], message["reasoning_content"]) == ("yes<|user|>", "hm")
    assert text == "hmyes"


class _Ending:
    """The tokenizer, for which <|end|> ends nothing."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.eog_ids = frozenset((inner.eos_id,))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


async def test_what_requests_do_not_say_about_reasoning_the_servers_options_do(marked):
    engine, make = marked
    engine.reply = [*ids("<|user|>"), *ids("Hm."), *ids("<|end|>"), *ids("Hello!")]
    options = {"reasoning_format": "none", "reasoning_budget": 7}
    options["chat_template_kwargs"] = {"opened": False}
    async with client(make(**options)) as http:
        plain = await http.post(CHAT, json={"messages": user("Hi")})
        said = {"reasoning_format": "auto", "reasoning_budget": -1, "chat_template_kwargs": {"opened": True}}
        other = await http.post(CHAT, json={"messages": user("Hi"), **said})
    async with client(make(reasoning="off")) as http:
        await http.post(CHAT, json={"messages": user("Hi")})
        await http.post(
            CHAT, json={"messages": user("Hi"), "chat_template_kwargs": {"enable_thinking": True}}
        )
    assert plain.json()["choices"][0]["message"]["content"] == "<|user|>Hm.<|end|>Hello!"
    message = other.json()["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("Hello!", "Hm.")
    budgets = [
        request.thinking and (request.thinking.budget, request.thinking.opened) for request in engine.seen
    ]
    assert budgets == [(7, False), None, (0, False), None]


async def test_reasoning_off_in_the_template():
    engine = answering("x")
    async with client(app(engine, reasoning="off")) as http:
        shown = await http.post("/apply-template", json={"messages": user("Hi")})
        asked = {"messages": user("Hi"), "chat_template_kwargs": {"enable_thinking": True}}
        other = await http.post("/apply-template", json=asked)
    assert shown.json()["prompt"].endswith("<think>\n\n</think>\n\n")
    assert other.json()["prompt"].endswith("<|im_start|>assistant\n")


async def test_effort_that_the_template_does_not_take():
    body = await ask(answering("x"), reasoning_effort="low")
    assert body["warnings"] == [
        "the effort of reasoning has no effect: the chat template takes no reasoning_effort"
    ]
    assert "warnings" not in await ask(answering("x"), GPT_OSS, reasoning_effort="low")
    assert "warnings" not in await ask(answering("x"), reasoning_effort="none")


SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}


async def constraints(template: str | None, *bodies: dict[str, Any]) -> list[Any]:
    """What the answers to these requests must match."""
    engine = answering("x")
    for body in bodies:
        await ask(engine, template, **body)
    return [request.constraint for request in engine.seen]


async def test_calls_are_held_to_a_grammar():
    required = {"tools": TOOLS, "tool_choice": "required"}
    named = {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "now"}}}
    auto, every, one, single, none, plain = await constraints(
        QWEN,
        {"tools": TOOLS},
        required,
        {**required, "parallel_tool_calls": False},
        named,
        {"tools": TOOLS, "tool_choice": "none"},
        {},
    )
    assert none is plain is None
    assert {constraint.kind for constraint in (auto, every, one, single)} == {"lark"}
    assert "TEXT" in auto.text
    assert "TEXT" not in every.text
    assert len({auto.text, every.text, one.text, single.text}) == 4
    assert "get_weather" in one.text
    assert "get_weather" not in single.text


async def test_an_answer_of_another_form_beside_tools():
    free, beside = await constraints(
        QWEN, {"response_format": SCHEMA}, {"response_format": SCHEMA, "tools": TOOLS}
    )
    assert free.kind == "json_schema"
    assert beside.kind == "lark"
    assert "answer: " in beside.text
    (framed,) = await constraints(GPT_OSS, {"response_format": SCHEMA})
    assert framed.kind == "lark"
    assert "final" in framed.text
    both = {"tools": TOOLS, "tool_choice": "required", "response_format": SCHEMA}
    body = await ask(answering(CALLS["hermes"]), **both)
    assert body["warnings"] == [
        "response_format.json_schema.schema has no effect: a tool is called in any case"
    ]


async def test_reasoning_comes_before_what_is_held_to_a_grammar(marked):
    engine, make = marked
    async with client(make()) as http:
        for fields in ({"response_format": SCHEMA}, {"tools": TOOLS, "tool_choice": "required"}, {}):
            await http.post(CHAT, json={"messages": user("Hi"), **fields})
    assert [request.thinking is not None for request in engine.seen] == [True, True, False]
    # GPT-OSS's grammar has its reasoning in it.
    engine = answering("x")
    await ask(engine, GPT_OSS, tools=TOOLS, tool_choice="required")
    assert engine.seen[0].thinking is None
    await ask(engine, GPT_OSS, tools=TOOLS, tool_choice="required", reasoning_budget=5)
    assert engine.seen[1].thinking is not None


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [WEATHER, NOW], "grammar": 'root ::= "x"'}, "grammar"),
        ({"tools": [NOW, "bad"], "tool_choice": "required"}, "tools[1].function.parameters"),
        ({"tools": ["bad"], "response_format": SCHEMA}, "tools[0].function.parameters"),
        ({"tools": [NOW], "response_format": {"type": "regex", "pattern": "("}}, "response_format.pattern"),
    ],
)
async def test_what_no_grammar_can_hold_is_refused(fields, param):
    bad = {
        "type": "function",
        "function": {"name": "f", "parameters": {"properties": {"x": {"type": "nope"}}}},
    }
    fields = {**fields, "tools": [bad if tool == "bad" else tool for tool in fields["tools"]]}
    engine = answering("x")
    async with client(app(engine)) as http:
        response = await http.post(CHAT, json={"messages": user("Hi"), **fields})
    assert error_of(response, 400)["param"] == param
    assert engine.seen == []


async def test_calls_that_are_not_required_go_without_a_grammar_where_there_is_none():
    bad = {
        "type": "function",
        "function": {"name": "f", "parameters": {"properties": {"x": {"type": "nope"}}}},
    }
    engine = answering("x")
    body = await ask(engine, tools=[bad])
    assert body["warnings"][0].startswith("tools: arguments are not held to the schemas (tools: ")
    assert engine.seen[0].constraint is None
