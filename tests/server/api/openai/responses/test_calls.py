"""Calls of each form and their outputs in the input of /v1/responses, and reasoning that comes back."""

from __future__ import annotations

import pytest

from support.api.http import client, error_of
from support.api.named_events import SHOWING, THINKING, messages_seen, named_events, template
from support.fakes.engine import FakeEngine, make_app

pytestmark = pytest.mark.asyncio
RESPONSES = "/v1/responses"
USER = {"role": "user", "content": "a"}


async def seen_of(tmp_path, *items):
    """The messages that the template gets, and the warnings."""
    engine = FakeEngine(n_ctx=4096)
    app = make_app(engine, chat_template=template(tmp_path, SHOWING))
    async with client(app) as http:
        response = await http.post(RESPONSES, json={"input": [USER, *items]})
    assert response.status_code == 200, response.text
    return messages_seen(engine), response.json().get("warnings", [])


@pytest.mark.parametrize(
    ("call", "output", "function", "text"),
    [
        (
            {"type": "function_call", "name": "find", "namespace": "files", "arguments": '{"a": 1}'},
            {"type": "function_call_output", "output": [{"type": "input_text", "text": "done"}]},
            ("files__find", {"a": 1}),
            "done",
        ),
        (
            {"type": "custom_tool_call", "name": "patch", "input": 'a "b"'},
            {"type": "custom_tool_call_output", "output": "done"},
            ("patch", {"input": 'a "b"'}),
            "done",
        ),
        (
            {"type": "local_shell_call", "action": {"type": "exec", "command": ["ls"], "env": {}}},
            {"type": "local_shell_call_output", "output": "done"},
            ("local_shell", {"type": "exec", "command": ["ls"], "env": {}}),
            "done",
        ),
        (
            {"type": "shell_call", "action": {"commands": ["ls"]}, "environment": {"type": "local"}},
            {"type": "shell_call_output", "output": [{"stdout": "x", "stderr": ""}]},
            ("shell", {"commands": ["ls"]}),
            '[{"stdout": "x", "stderr": ""}]',
        ),
        (
            {"type": "apply_patch_call", "operation": {"type": "delete_file", "path": "a"}},
            {"type": "apply_patch_call_output", "status": "failed"},
            ("apply_patch", {"type": "delete_file", "path": "a"}),
            "failed",
        ),
    ],
)
async def test_calls_of_every_form_become_functions_and_results(tmp_path, call, output, function, text):
    call, output = ({**item, "call_id": "c1"} for item in (call, output))
    messages, warnings = await seen_of(tmp_path, call, output)
    [requested] = messages[1]["tool_calls"]
    assert (requested["id"], requested["function"]["name"], requested["function"]["arguments"]) == (
        "c1",
        *function,
    )
    assert (messages[2]["role"], messages[2]["tool_call_id"]) == ("tool", "c1")
    assert messages[2]["content"].replace(" ", "") == text.replace(" ", "")
    assert warnings == []


async def test_local_shell_output_may_name_its_call_by_id(tmp_path):
    call = {"type": "local_shell_call", "call_id": "c1", "action": {"type": "exec", "command": ["ls"]}}
    messages, _ = await seen_of(
        tmp_path, call, {"type": "local_shell_call_output", "id": "c1", "output": "x"}
    )
    assert messages[2]["tool_call_id"] == "c1"


async def test_hosted_tool_items_are_left_out_with_a_warning(tmp_path):
    messages, warnings = await seen_of(tmp_path, {"type": "web_search_call", "id": "ws_1"})
    assert [message["role"] for message in messages] == ["user"]
    assert [text.split()[0] for text in warnings] == ["input[1]"]


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({"type": "custom_tool_call_output", "call_id": "no", "output": "x"}, "input[1].call_id"),
        ({"type": "local_shell_call_output", "id": "no", "output": "x"}, "input[1].id"),
        ({"type": "custom_tool_call", "call_id": "c", "name": "f"}, "input[1].input"),
        ({"type": "shell_call", "call_id": "c"}, "input[1].action"),
        ({"type": "apply_patch_call", "call_id": "c", "operation": "x"}, "input[1].operation"),
        ({"type": "compaction", "encrypted_content": "x"}, "input[1].type"),
    ],
)
async def test_invalid_calls_are_refused_by_name(item, param):
    async with client() as http:
        error = error_of(await http.post(RESPONSES, json={"input": [USER, item]}), 400)
    assert error["param"] == param


@pytest.mark.parametrize("stream", [False, True])
async def test_reasoning_is_restored_from_encrypted_content_alone(tmp_path, stream):
    app = make_app(FakeEngine("<think>wöll</think>So."), chat_template=template(tmp_path, THINKING))
    include = ["reasoning.encrypted_content"]
    async with client(app) as http:
        body = {"input": "a", "include": include, "store": False, "stream": stream}
        response = await http.post(RESPONSES, json=body)
    whole = named_events(response.text)[-1]["response"] if stream else response.json()
    reasoning, message = whole["output"]
    assert not [text for text in whole.get("warnings", ()) if "include" in text]
    del reasoning["content"]
    messages, _ = await seen_of(tmp_path, reasoning, message, USER)
    assert (messages[1]["reasoning_content"], messages[1]["content"]) == ("wöll", "So.")


async def test_reasoning_not_requested_encrypted_has_no_encrypted_content(tmp_path):
    app = make_app(FakeEngine("<think>well</think>So."), chat_template=template(tmp_path, THINKING))
    async with client(app) as http:
        response = await http.post(RESPONSES, json={"input": "a"})
    assert "encrypted_content" not in response.json()["output"][0]


@pytest.mark.parametrize("seal", ["gAAAAAB", "ggserve:%", "ggserve:/w=="])
async def test_reasoning_encrypted_by_another_server_is_left_out_with_a_warning(tmp_path, seal):
    reasoning = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": seal}
    messages, warnings = await seen_of(tmp_path, reasoning, {"role": "assistant", "content": "b"}, USER)
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert "reasoning_content" not in messages[1]
    assert [text.split()[0] for text in warnings] == ["input[1].encrypted_content"]
