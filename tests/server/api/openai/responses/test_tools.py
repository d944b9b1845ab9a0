"""Tools of /v1/responses that are no plain functions: namespaces, custom tools, shells, hosted ones."""

from __future__ import annotations

import json

import pytest

from support.api.http import client, error_of
from support.api.named_events import named_events, template
from support.fakes.engine import FakeEngine, make_app, tokenizer

pytestmark = pytest.mark.asyncio
RESPONSES = "/v1/responses"
SHOWING_TOOLS = "{{ tools | tojson }}{# tool_calls #}"
FIND = {"type": "function", "name": "find", "parameters": {"type": "object", "properties": {}}}
SPACE = {"type": "namespace", "name": "files", "description": "Files", "tools": [FIND]}
PATCH = {"type": "custom", "name": "patch", "description": "Change files"}


def called(name, **arguments):
    return json.dumps({"tool_calls": [{"name": name, "arguments": arguments}]})


async def respond(tmp_path, reply, tools, **body):
    """The response, and the functions that the template saw."""
    engine = FakeEngine(reply, n_ctx=4096)
    app = make_app(engine, chat_template=template(tmp_path, SHOWING_TOOLS))
    async with client(app) as http:
        response = await http.post(RESPONSES, json={"input": "A cat", "tools": tools, **body})
    assert response.status_code == 200, response.text
    seen = [tool["function"] for tool in json.loads(tokenizer().decode(engine.seen[-1].prompt))]
    return response, seen


async def test_namespace_is_flattened_and_its_names_are_restored(tmp_path):
    response, seen = await respond(tmp_path, called("files__find"), [FIND, SPACE])
    assert [function["name"] for function in seen] == ["find", "files__find"]
    [item] = response.json()["output"]
    assert (item["type"], item["namespace"], item["name"]) == ("function_call", "files", "find")
    assert response.json()["tools"][1] == SPACE


async def test_a_namespace_that_ends_with_the_separator_gets_no_second_one(tmp_path):
    response, seen = await respond(tmp_path, called("mcp__x__find"), [{**SPACE, "name": "mcp__x__"}])
    assert [function["name"] for function in seen] == ["mcp__x__find"]
    assert response.json()["output"][0]["namespace"] == "mcp__x__"


async def test_a_function_outside_of_namespaces_has_no_namespace(tmp_path):
    response, _ = await respond(tmp_path, called("find"), [FIND, SPACE])
    assert "namespace" not in response.json()["output"][0]


@pytest.mark.parametrize("hosted", [{"type": "web_search"}, {"type": "mcp", "server_label": "x"}])
async def test_a_hosted_tool_is_left_out_with_a_warning(tmp_path, hosted):
    response, seen = await respond(tmp_path, "No.", [hosted, FIND])
    assert [function["name"] for function in seen] == ["find"]
    [warning] = [text for text in response.json()["warnings"] if text.startswith("tools[0]")]
    assert hosted["type"] in warning


async def test_shell_in_a_container_is_left_out_but_a_local_one_is_kept(tmp_path):
    container = {"type": "shell", "environment": {"type": "container_auto"}}
    response, seen = await respond(tmp_path, "No.", [container, FIND])
    assert [function["name"] for function in seen] == ["find"]
    assert response.json()["warnings"][0].startswith("tools[0]")
    _, seen = await respond(tmp_path, "No.", [{"type": "shell", "environment": {"type": "local"}}])
    assert [function["name"] for function in seen] == ["shell"]


async def test_a_custom_tool_takes_and_gives_plain_text(tmp_path):
    text = '*** Begin\n+ "a"\n*** End'
    response, seen = await respond(tmp_path, called("patch", input=text), [PATCH])
    assert seen[0]["parameters"]["required"] == ["input"]
    [item] = response.json()["output"]
    assert (item["type"], item["name"], item["input"]) == ("custom_tool_call", "patch", text)
    assert item["id"].startswith("ctc_")
    assert "arguments" not in item


async def test_streamed_custom_tool_call_has_its_events(tmp_path):
    response, _ = await respond(tmp_path, called("patch", input="x y"), [PATCH], stream=True)
    events = named_events(response.text)
    mine = [event for event in events if "custom_tool_call_input" in event["type"]]
    assert [event["type"].rsplit(".", 1)[1] for event in mine] == ["delta", "done"]
    assert (mine[0]["delta"], mine[1]["input"]) == ("x y", "x y")
    [added] = [event["item"] for event in events if event["type"] == "response.output_item.added"]
    [done] = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert (added["input"], done["input"]) == ("", "x y")
    assert added["id"] == done["id"] == mine[0]["item_id"]
    assert not [event for event in events if "function_call" in event["type"]]


async def test_custom_tool_regex_is_in_its_schema_and_a_grammar_gets_a_warning(tmp_path):
    regex = {"type": "grammar", "syntax": "regex", "definition": "[ab]+"}
    lark = {"type": "grammar", "syntax": "lark", "definition": 'start: "a"'}
    tools = [{**PATCH, "format": regex}, {**PATCH, "name": "other", "format": lark}]
    response, seen = await respond(tmp_path, "No.", tools)
    assert seen[0]["parameters"]["properties"]["input"]["pattern"] == "^(?:[ab]+)$"
    assert 'start: "a"' in seen[1]["description"]
    [warning] = [text for text in response.json()["warnings"] if "grammar" in text]
    assert warning.startswith("tools[1].format")


@pytest.mark.parametrize(
    ("tool", "arguments", "fields"),
    [
        (
            "local_shell",
            {"command": ["ls", "-l"], "timeout_ms": 5},
            {"action": {"type": "exec", "command": ["ls", "-l"], "env": {}, "timeout_ms": 5}},
        ),
        (
            "shell",
            {"commands": ["ls"]},
            {
                "action": {"commands": ["ls"], "timeout_ms": None, "max_output_length": None},
                "environment": {"type": "local"},
            },
        ),
        (
            "apply_patch",
            {"type": "delete_file", "path": "a"},
            {"operation": {"type": "delete_file", "path": "a"}},
        ),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_api_defined_tools_have_their_own_items(tmp_path, tool, arguments, fields, stream):
    response, seen = await respond(tmp_path, called(tool, **arguments), [{"type": tool}], stream=stream)
    assert seen[0]["name"] == tool
    if stream:
        events = named_events(response.text)
        kinds = [event["type"] for event in events if "item" in event]
        assert kinds == ["response.output_item.added", "response.output_item.done"]
        [item] = events[-1]["response"]["output"]
    else:
        [item] = response.json()["output"]
    assert item["type"] == f"{tool}_call"
    assert item["status"] == "completed"
    assert {name: item[name] for name in fields} == fields


async def test_arguments_unfit_for_the_item_stay_a_function_call(tmp_path):
    response, _ = await respond(tmp_path, called("apply_patch", type="rename"), [{"type": "apply_patch"}])
    [item] = response.json()["output"]
    assert (item["type"], json.loads(item["arguments"])) == ("function_call", {"type": "rename"})


@pytest.mark.parametrize(
    ("choice", "name"),
    [
        ({"type": "function", "name": "find", "namespace": "files"}, "files__find"),
        ({"type": "custom", "name": "patch"}, "patch"),
        ({"type": "shell"}, "shell"),
    ],
)
async def test_a_choice_names_tools_of_every_kind(tmp_path, choice, name):
    tools = [SPACE, PATCH, {"type": "shell"}]
    response, _ = await respond(tmp_path, called(name, input="x", commands=["x"]), tools, tool_choice=choice)
    assert response.json()["output"]
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [choice, {"type": "web_search"}]}
    response, _ = await respond(tmp_path, "x", [*tools, {"type": "web_search"}], tool_choice=allowed)
    assert [text for text in response.json()["warnings"] if text.startswith("tool_choice.tools[1]")]


@pytest.mark.parametrize(
    ("tools", "param"),
    [
        ([{"type": "frog"}], "tools[0].type"),
        ([{"type": "namespace", "tools": [FIND]}], "tools[0].name"),
        ([{**SPACE, "tools": [{"type": "web_search"}]}], "tools[0].tools[0].type"),
        ([{**SPACE, "name": "a b"}], "tools[0].tools[0].name"),
        ([{"type": "custom"}], "tools[0].name"),
        ([{**PATCH, "format": {"type": "xml"}}], "tools[0].format.type"),
        ([{**PATCH, "format": {"type": "grammar", "syntax": "bnf"}}], "tools[0].format.syntax"),
        ([{**PATCH, "format": {"type": "grammar", "syntax": "lark"}}], "tools[0].format.definition"),
        ([{"type": "local_shell"}, {**FIND, "name": "local_shell"}], "tools"),
    ],
)
async def test_invalid_tools_are_refused_by_name(tools, param):
    engine = FakeEngine()
    async with client(engine) as http:
        error = error_of(await http.post(RESPONSES, json={"input": "A cat", "tools": tools}), 400)
    assert error["param"] == param
    assert engine.seen == []


async def test_schema_after_a_hosted_tool_is_refused_at_its_place():
    schema = {"type": "object", "properties": {"x": {"$ref": "#/nowhere"}}}
    tools = [{"type": "web_search"}, {**FIND, "parameters": schema}]
    async with client() as http:
        body = {"input": "A cat", "tools": tools, "tool_choice": "required"}
        error = error_of(await http.post(RESPONSES, json=body), 400)
    assert error["param"] == "tools[1].parameters"
