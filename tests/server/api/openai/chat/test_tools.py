"""Tools of POST /v1/chat/completions, whole and streamed."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from engine.constraint import json_schema
from server.input import constraints as checks
from support.api.chat import (
    GPT_OSS,
    LLAMA,
    NOW,
    QWEN,
    SCHEMA,
    TOOLS,
    WEATHER,
    NotEnding,
    answering,
    app,
    ask,
    deltas,
)
from support.api.http import CHAT, client, error_of, user
from support.api.tools import ARGUMENTS, CALLS, VALUE
from support.fakes.engine import ids, tokenizer

pytestmark = pytest.mark.asyncio


async def test_whole_response_has_its_calls():
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


async def test_deltas_come_as_role_calls_and_finish_reason():
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


async def test_template_receives_the_tools():
    engine = answering("x")
    await ask(engine, tools=TOOLS)
    await ask(engine, tools=TOOLS, tool_choice="none")
    prompts = [tokenizer().decode(request.prompt) for request in engine.seen]
    assert '"name": "get_weather"' in prompts[0]
    assert prompts[0] == prompts[1]


async def test_calls_without_offered_tools_stay_text():
    body = await ask(answering(CALLS["hermes"]), tools=TOOLS, tool_choice="none")
    assert body["choices"][0]["message"]["content"] == CALLS["hermes"]
    assert body["choices"][0]["finish_reason"] == "stop"
    assert (await ask(answering(CALLS["hermes"])))["choices"][0]["message"]["content"] == CALLS["hermes"]


async def test_only_allowed_tools_are_called():
    allowed = {"mode": "auto", "tools": [{"type": "function", "function": {"name": "now"}}]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    body = await ask(answering(CALLS["hermes"]), tools=TOOLS, tool_choice=choice)
    assert [call["function"]["name"] for call in body["choices"][0]["message"]["tool_calls"]] == ["now"]


async def test_parallel_tool_calls_off_allows_one_call():
    body = await ask(answering(CALLS["hermes"]), tools=TOOLS, parallel_tool_calls=False)
    assert len(body["choices"][0]["message"]["tool_calls"]) == 1
    llama = await ask(answering(CALLS["llama3"]), LLAMA, tools=TOOLS)  # its template shows only one
    assert len(llama["choices"][0]["message"]["tool_calls"]) == 1


async def test_results_reach_the_prompt_of_the_next_turn():
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


async def test_template_without_tools_gets_them_described():
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
        ({"tools": [{"type": None, "function": {"name": "f"}}]}, "tools[0].type"),
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
async def test_invalid_tools_and_choices_are_refused_by_name(fields, param):
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
async def test_invalid_turns_are_refused_by_name(messages, param):
    async with client(app(answering("x"))) as http:
        response = await http.post(CHAT, json={"messages": [*user("Hi"), *messages]})
    assert error_of(response, 400)["param"] == param


async def test_call_arguments_may_be_an_object():
    call = {**CALL, "function": {"name": "now", "arguments": {"x": 1}}, "index": 0}
    body = await ask(
        answering("x"), messages=[*user("Hi"), {"role": "assistant", "tool_calls": [call]}, *user("x")]
    )
    assert "warnings" not in body


async def test_harmony_channels_are_split_into_reasoning_content_and_calls():
    text = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant" + CALLS["harmony"]
    engine = answering(text)
    engine.tokenizer = NotEnding(tokenizer())
    message = (await ask(engine, GPT_OSS, tools=TOOLS))["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == (None, "Hm.")
    assert [call["function"]["name"] for call in message["tool_calls"]] == ["get_weather"]  # one a turn
    final = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Hello!"
    engine.reply = ids(final)
    message = (await ask(engine, GPT_OSS))["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("Hello!", "Hm.")


async def constraints(template: str | None, *bodies: dict[str, Any]) -> list[Any]:
    """What the answers to these requests must match."""
    engine = answering("x")
    for body in bodies:
        await ask(engine, template, **body)
    return [request.constraint for request in engine.seen]


async def test_required_calls_are_constrained_by_a_grammar():
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


async def test_response_format_alongside_tools_becomes_one_grammar():
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


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [WEATHER, NOW], "grammar": 'root ::= "x"'}, "grammar"),
        ({"tools": [NOW, "bad"], "tool_choice": "required"}, "tools[1].function.parameters"),
        ({"tools": ["bad"], "response_format": SCHEMA}, "tools[0].function.parameters"),
        ({"tools": ["odd"], "tool_choice": "required"}, "tools[0].function.parameters"),
        (
            {
                "tools": ["other", NOW, "bad"],
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {
                        "mode": "required",
                        "tools": [{"type": "function", "function": {"name": name}} for name in ("now", "f")],
                    },
                },
            },
            "tools[2].function.parameters",
        ),
        ({"tools": [NOW], "response_format": {"type": "regex", "pattern": "("}}, "response_format.pattern"),
    ],
)
async def test_inexpressible_schemas_are_refused(fields, param):
    bad = {
        "type": "function",
        "function": {"name": "f", "parameters": {"properties": {"x": {"type": "nope"}}}},
    }
    odd = {"type": "function", "function": {"name": "f", "parameters": {"x-guidance": 5, "required": ["x"]}}}
    other = {"type": "function", "function": {**bad["function"], "name": "other"}}
    named = {"bad": bad, "odd": odd, "other": other}
    fields = {**fields, "tools": [named[tool] if isinstance(tool, str) else tool for tool in fields["tools"]]}
    engine = answering("x")
    async with client(app(engine)) as http:
        response = await http.post(CHAT, json={"messages": user("Hi"), **fields})
    assert error_of(response, 400)["param"] == param
    assert engine.seen == []


async def test_schemas_are_read_only_in_the_sandboxed_process(monkeypatch):
    def read(*fields, **options):
        raise AssertionError("in the server")

    monkeypatch.setattr(json_schema, "Reader", read)
    engine = answering("x")
    for fields in ({"tool_choice": "required"}, {"response_format": SCHEMA}, {}):
        body = await ask(engine, tools=TOOLS, **fields)
        assert "warnings" not in body
        assert engine.seen[-1].constraint.kind == "lark"


@pytest.mark.parametrize("n", [0, 1])
async def test_schemas_of_optional_tools_are_enforced_or_retried_later(n, monkeypatch):
    """A busy checker is no reason to leave them out. n: constraints that are checked at a time."""
    monkeypatch.setattr(checks, "MAX_WAITING", n)
    monkeypatch.setattr(checks, "MAX_QUEUED", n)
    bodies = [
        {"messages": user("Hi"), "tools": [{"type": "function", "function": {"name": f"f{i}"}}]}
        for i in range(2)
    ]
    engine = answering("x")
    async with client(app(engine)) as http:
        responses = await asyncio.gather(*(http.post(CHAT, json=body) for body in bodies))
    for response in responses:
        if n:
            assert "warnings" not in response.json()
        else:
            assert error_of(response, 503)["code"] == "overloaded"
    assert [request.constraint is not None for request in engine.seen] == [True] * 2 * n


@pytest.mark.parametrize("choice", ["auto", "required", {"type": "function", "function": {"name": "f1"}}])
async def test_unenforced_keywords_of_arguments_are_named_with_their_tool(choice):
    formats = ["uuid", "byte", "iban"]
    tools = [
        {
            "type": "function",
            "function": {
                "name": f"f{i}",
                "parameters": {"type": "object", "properties": {"x": {"type": "string", "format": format}}},
            },
        }
        for i, format in enumerate(formats)
    ]
    body = await ask(answering("x"), tools=tools, tool_choice=choice)
    expected = [
        f"tools[{i}].function.parameters: not enforced: format '{formats[i]}'"
        for i in (1, 2)[: 1 if isinstance(choice, dict) else 2]
    ]
    assert body["warnings"] == expected


async def test_optional_calls_without_a_possible_grammar_are_unconstrained():
    bad = {
        "type": "function",
        "function": {"name": "f", "parameters": {"properties": {"x": {"type": "nope"}}}},
    }
    engine = answering("x")
    body = await ask(engine, tools=[bad])
    assert body["warnings"][0].startswith(
        "tools: the schemas of arguments are not enforced (tools[0].function.parameters: "
    )
    assert engine.seen[0].constraint is None
