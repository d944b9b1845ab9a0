"""Tools, calls and results as text, for templates that do not render them."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engine import exact_json
from server.chat.messages import calls_as_text, parse_arguments, text_of
from server.chat.request import Tool
from server.chat.tool_calls.tool_call_format import ToolCallFormat, WritableFormat


def describe_tools(
    messages: list[Mapping[str, Any]], tools: Sequence[Tool], call_format: ToolCallFormat
) -> list[Mapping[str, Any]]:
    """Describe tools in the system message, for templates that do not render them."""
    example = call_format.example()
    described = exact_json.write([tool.wire()["function"] for tool in tools], ensure_ascii=False, indent=1)
    text = (
        f"You can call these tools, described as JSON:\n{described}\n\n"
        f"To call tools, answer with nothing but calls in exactly this form:\n{example}\n\n"
        "Call a tool only where it helps; otherwise answer in plain text."
    )
    if messages and messages[0]["role"] in ("system", "developer"):
        first = text_of(messages[0].get("content"))
        return [{**messages[0], "content": f"{first}\n\n{text}" if first else text}, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def calls_as_user_text(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Write calls and results as assistant and user text, for templates that do not render them."""
    written: list[Mapping[str, Any]] = []
    names: dict[str, str] = {}
    for message in messages:
        if calls := message.get("tool_calls"):
            names |= {call.get("id", ""): call["function"]["name"] for call in calls}
            text = calls_as_text(calls)
            content = text_of(message.get("content"))
            rest = {key: value for key, value in message.items() if key != "tool_calls"}
            written.append({**rest, "content": f"{content}\n{text}" if content else text})
        elif message["role"] == "tool":
            name = message.get("name") or names.get(message.get("tool_call_id", ""))
            result = {"name": name, "content": text_of(message.get("content"))}
            _add_result_text(written, exact_json.write({"tool_response": result}, ensure_ascii=False))
        elif message["role"] == "user" and written and written[-1].get("role") == "result":
            _add_result_text(written, text_of(message.get("content")))
        else:
            written.append(message)
    return [{**m, "role": "user"} if m["role"] == "result" else m for m in written]


def _add_result_text(messages: list[Mapping[str, Any]], text: str) -> None:
    """Append to a turn of results, since many templates require users and assistants to alternate."""
    if messages and messages[-1]["role"] == "result":
        messages[-1] = {**messages[-1], "content": f"{messages[-1]['content']}\n{text}"}
    else:
        messages.append({"role": "result", "content": text})


def write_calls(
    messages: Sequence[Mapping[str, Any]], call_format: WritableFormat, split_tokens: Callable[[Any], Any]
) -> tuple[list[Mapping[str, Any]], dict[str, str]]:
    """Calls in the model's own syntax as part of the content, and the text for each placeholder in it.

    `insert_written` replaces the placeholders with the texts: unlike in text from clients, markers in them
    are special tokens. Raises InvalidMessage.
    """
    marked: list[Mapping[str, Any]] = []
    written: dict[str, str] = {}
    for i, message in enumerate(messages):
        if not message.get("tool_calls"):
            marked.append(message)
            continue
        calls = []
        for j, call in enumerate(message["tool_calls"]):
            function = call["function"]
            path = f"[{i}].tool_calls[{j}].function.arguments"
            arguments = split_tokens(parse_arguments(path, function.get("arguments") or ""))
            calls.append((split_tokens(function["name"]), exact_json.write(arguments, ensure_ascii=False)))
        mark = secrets.token_hex(16)  # nothing that a client could know
        written[mark] = call_format.written(calls)
        rest = {key: value for key, value in message.items() if key != "tool_calls"}
        marked.append({**rest, "content": text_of(message.get("content")) + mark})
    return marked, written


def insert_written(text: str, written: Mapping[str, str]) -> str:
    for mark, calls in written.items():
        text = text.replace(mark, calls)
    return text
