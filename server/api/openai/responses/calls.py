"""Tool calls as items, in each form that the API has. The model only sees functions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from server.api.common.requests.parser import Fields, json_text
from server.errors import missing

Item = dict[str, Any]
_IDLE = frozenset({"parsed_arguments", "created_by", "caller", "environment"})
_COMMON = frozenset({"type", "id", "status", "call_id"})
# The types of calls: the prefix of their ids, and the type of their outputs.
PREFIXES = {
    "function_call": "fc_",
    "custom_tool_call": "ctc_",
    "local_shell_call": "lsh_",
    "shell_call": "sh_",
    "apply_patch_call": "apc_",
}
OUTPUTS = {f"{kind}_output": kind for kind in PREFIXES}
# Tools that are their client's own, although the API defines them: what is in the field of their calls.
FUNCTIONS = {"local_shell_call": "local_shell", "shell_call": "shell", "apply_patch_call": "apply_patch"}
_BODIES = {"local_shell_call": "action", "shell_call": "action", "apply_patch_call": "operation"}


@dataclass(frozen=True)
class CallForm:
    """How calls of a function that the model sees are shown: the item's type, the client's name for it."""

    kind: str
    name: str
    namespace: str | None = None

    @property
    def streams(self) -> bool:
        """Whether the item can be shown before its arguments are complete."""
        return self.kind not in FUNCTIONS


def flat_name(namespace: str | None, name: str) -> str:
    """The name under which the model sees a function in a namespace."""
    if not namespace:
        return name
    return namespace + name if namespace.endswith("__") else f"{namespace}__{name}"


def read_call(kind: str, fields: Fields) -> Item:
    """The fields of a call in a request's input, other than `id` and `type`."""
    item: Item = {"call_id": fields.text("call_id")}
    if kind in FUNCTIONS:
        body = _BODIES[kind]
        fields.only(_COMMON | {body}, _IDLE)
        return {**item, body: fields.object(body), "status": "completed"}
    text = "arguments" if kind == "function_call" else "input"
    fields.only(_COMMON | {"name", "namespace", text}, _IDLE)
    item |= {"name": fields.text("name"), text: fields.text(text), "status": "completed"}
    if namespace := fields.text_or("namespace", ""):
        item["namespace"] = namespace
    return item


def as_function(item: Item) -> dict[str, str]:
    """The name and arguments of a call as a function call."""
    kind = item["type"]
    if kind == "function_call":
        arguments = item["arguments"]
    elif kind == "custom_tool_call":
        arguments = json_text({"input": item["input"]}, "input")
    else:
        arguments = json_text(item[_BODIES[kind]], "input")
    name = FUNCTIONS.get(kind) or flat_name(item.get("namespace"), item["name"])
    return {"name": name, "arguments": arguments}


def output_text(kind: str, fields: Fields) -> str | None:
    """The text of an output whose form has its own fields; None if it has the form of a function output."""
    if kind == "shell_call_output":
        fields.only(_COMMON | {"output", "max_output_length"}, _IDLE)
        if fields.get("output") is None:
            raise missing(fields.at("output"))
        return json_text([part.value for part in fields.objects("output")], fields.at("output"))
    if kind == "apply_patch_call_output":
        fields.only(_COMMON | {"output"}, _IDLE)
        return fields.text_or("output", fields.text_or("status", "completed"))
    return None


def call_item(form: CallForm, call_id: str, text: str) -> Item | None:
    """The call in the client's form. None: the form cannot represent what the model wrote."""
    named: Item = {"call_id": call_id, "name": form.name}
    if form.namespace is not None:
        named["namespace"] = form.namespace
    if form.kind == "function_call":
        return {**named, "arguments": text}
    value = _object(text)
    if form.kind == "custom_tool_call":
        written = value.get("input")
        return {**named, "input": written if isinstance(written, str) else text}
    body = _body(form.kind, value)
    return None if body is None else {"call_id": call_id, **body}


def _body(kind: str, value: Mapping[str, Any]) -> Item | None:
    if kind == "apply_patch_call":
        known = {"create_file": ("path", "diff"), "update_file": ("path", "diff"), "delete_file": ("path",)}
        names = known.get(str(value.get("type")))
        if names is None or not all(isinstance(value.get(name), str) for name in names):
            return None
        return {"operation": {name: value[name] for name in ("type", *names)}}
    name = "command" if kind == "local_shell_call" else "commands"
    words = value.get(name)
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        return None
    if kind == "shell_call":
        limits = {limit: value.get(limit) for limit in ("timeout_ms", "max_output_length")}
        return {"action": {name: words, **limits}, "environment": {"type": "local"}}
    known_fields = ("working_directory", "timeout_ms")
    extra = {field: value[field] for field in known_fields if value.get(field) is not None}
    return {"action": {"type": "exec", name: words, "env": {}, **extra}}


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
