"""`tools` and `tool_choice` of a Responses request, and the tool calls in its input.

Each of the client's tools becomes a function, and so does each call.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from server.api.common.requests.parser import Fields, choice_by_mode, json_text, objects
from server.api.openai.responses.schema import ResponseInput
from server.chat.request import Tool, ToolChoice
from server.errors import missing, unsupported
from server.generation.request_context import RequestContext

Item = dict[str, Any]
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
_CALL = frozenset({"type", "id", "status", "call_id"})
_IDLE_OF_CALLS = frozenset({"parsed_arguments", "created_by", "caller", "environment"})
_TOOL = frozenset({"type", "name", "description", "parameters", "strict"})
_IDLE = frozenset({"allowed_callers", "defer_loading"})
# Items of tools that the official API runs, in conversations that began there.
HOSTED_ITEMS = frozenset(
    {
        "code_interpreter_call",
        "file_search_call",
        "image_generation_call",
        "mcp_approval_request",
        "mcp_approval_response",
        "mcp_call",
        "mcp_list_tools",
        "tool_search_call",
        "tool_search_output",
        "web_search_call",
    }
)
# Those that the official API runs itself.
_HOSTED = frozenset(
    {
        "code_interpreter",
        "computer",
        "computer_use_preview",
        "file_search",
        "image_generation",
        "mcp",
        "programmatic_tool_calling",
        "tool_search",
        "web_search",
        "web_search_2025_08_26",
        "web_search_preview",
        "web_search_preview_2025_03_11",
    }
)
_TEXT, _COUNT = {"type": "string"}, {"type": "integer", "minimum": 1}
_TEXTS = {"type": "array", "items": _TEXT, "minItems": 1}
# Tools that the official API defines and the client runs: description and parameters.
_DEFINED: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "local_shell": (
        "Run a program on the user's machine. `command` is the program and its arguments.",
        {"command": _TEXTS, "working_directory": _TEXT, "timeout_ms": _COUNT},
        ["command"],
    ),
    "shell": (
        "Run commands in a shell on the user's machine, one after the other.",
        {"commands": _TEXTS, "timeout_ms": _COUNT, "max_output_length": _COUNT},
        ["commands"],
    ),
    "apply_patch": (
        "Create, update or delete one file. `diff` has the lines of the file, each after '+' (added), "
        "'-' (removed) or a space (unchanged); parts of an updated file begin with a line '@@'.",
        {
            "type": {"type": "string", "enum": ["create_file", "update_file", "delete_file"]},
            "path": _TEXT,
            "diff": _TEXT,
        },
        ["type", "path"],
    ),
}
_CALLS = {name: kind for kind, name in FUNCTIONS.items()}


@dataclass(frozen=True)
class CallForm:
    """How calls of a function that the model sees are shown: the item's type, the client's name for it."""

    kind: str
    name: str
    namespace: str | None = None


@dataclass
class RequestTools:
    """The functions that the model sees, how calls of each are shown to the client, and which are called."""

    tools: list[Tool] = field(default_factory=list)
    forms: dict[str, CallForm] = field(default_factory=dict)
    choice: ToolChoice = field(default_factory=ToolChoice)

    def add(self, tool: Tool, form: CallForm) -> None:
        self.tools.append(tool)
        self.forms.setdefault(tool.name, form)


def read_tools(body: ResponseInput, context: RequestContext) -> RequestTools:
    """The tools. Warns about those that are left out."""
    request_tools = RequestTools()
    for tool in objects(body.tools, "tools", context):
        kind = tool.text_or("type", "function")
        if kind == "namespace":
            tool.only(frozenset({"type", "name", "description", "tools"}), _IDLE)
            namespace = tool.text("name")
            for inner in tool.objects("tools"):
                _read(inner, inner.one_of("type", ("function", "custom")), namespace, request_tools)
        else:
            _read(tool, kind, None, request_tools)
    request_tools.choice = _read_choice(body, context)
    return request_tools


def _read(tool: Fields, kind: str, namespace: str | None, request_tools: RequestTools) -> None:
    environment = tool.get("environment")
    if kind == "shell" and isinstance(environment, dict) and environment.get("type", "local") != "local":
        kind = "shell in a container"
    if kind in _HOSTED or kind == "shell in a container":
        message = f"{tool.path} has no effect: tools of type {kind!r} are not run by this server"
        tool.context.warn(message)
    elif kind == "function":
        tool.only(_TOOL, _IDLE)
        get = tool.get
        name = flat_name(namespace, tool.text("name"))
        function = Tool(name, get("description"), get("parameters"), get("strict"), tool.path)
        request_tools.add(function, CallForm("function_call", tool.text("name"), namespace))
    elif kind == "custom":
        name = flat_name(namespace, tool.text("name"))
        request_tools.add(_custom(tool, name), CallForm("custom_tool_call", tool.text("name"), namespace))
    elif kind in _DEFINED:
        tool.only(frozenset({"type", "environment"}), _IDLE)
        description, properties, required = _DEFINED[kind]
        parameters = {"type": "object", "properties": properties, "required": required}
        request_tools.add(Tool(kind, description, parameters, None, tool.path), CallForm(_CALLS[kind], kind))
    else:
        message = f"tools of type {kind[:64]!r} are not supported by this server; send functions"
        raise unsupported(tool.at("type"), message)


def _custom(tool: Fields, name: str) -> Tool:
    """A function whose only argument is the text that the client's custom tool takes."""
    tool.only(frozenset({"type", "name", "description", "format"}), _IDLE)
    text: dict[str, Any] = dict(_TEXT)
    description = tool.text_or("description", "")
    if tool.get("format") is not None:
        format = Fields(tool.get("format"), tool.at("format"), tool.context)
        if format.one_of("type", ("text", "grammar")) == "grammar":
            format.only(frozenset({"type", "syntax", "definition"}))
            syntax, definition = format.one_of("syntax", ("regex", "lark")), format.text("definition")
            if syntax == "regex":
                text["pattern"] = f"^(?:{definition})$"
            else:
                tool.context.warn(f"{format.path}: the grammar is shown to the model but not enforced")
            kind = "regular expression" if syntax == "regex" else "Lark grammar"
            description = f"{description}\n\nThe input must match this {kind}:\n{definition}".strip()
    parameters = {"type": "object", "properties": {"input": text}, "required": ["input"]}
    return Tool(name, description, parameters, None, tool.path)


def _read_choice(body: ResponseInput, context: RequestContext) -> ToolChoice:
    """Which tools may be called."""
    choice = body.tool_choice
    if choice is None or isinstance(choice, str):
        return choice_by_mode("auto" if choice is None else choice)
    fields = Fields(choice, "tool_choice", context)
    if fields.text("type") == "allowed_tools":
        fields.only(frozenset({"type", "mode", "tools"}))
        names = [name for tool in fields.objects("tools") for name in _choice_names(tool, allowed=True)]
        mode = fields.one_of("mode", ("auto", "required"), "auto")
        return ToolChoice("required" if mode == "required" else "auto", tuple(names))
    return ToolChoice("required", tuple(_choice_names(fields)))


def _choice_names(fields: Fields, allowed: bool = False) -> list[str]:
    """The names in a choice, as the model sees them. allowed: it is one of several, which may be hosted
    tools.
    """
    kind = fields.text("type")
    if kind in ("function", "custom"):
        fields.only(frozenset({"type", "name", "namespace"}))
        return [flat_name(fields.text_or("namespace", ""), fields.text("name"))]
    if kind in _DEFINED:
        fields.only(frozenset({"type"}))
        return [kind]
    if allowed and kind in _HOSTED:
        fields.context.warn(f"{fields.path} has no effect: tools of type {kind!r} are not run by this server")
        return []
    raise unsupported(fields.at("type"), f"the type {kind[:64]!r} is not supported; name a function")


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
        fields.only(_CALL | {body}, _IDLE_OF_CALLS)
        return {**item, body: fields.object(body), "status": "completed"}
    text = "arguments" if kind == "function_call" else "input"
    fields.only(_CALL | {"name", "namespace", text}, _IDLE_OF_CALLS)
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
        fields.only(_CALL | {"output", "max_output_length"}, _IDLE_OF_CALLS)
        if fields.get("output") is None:
            raise missing(fields.at("output"))
        return json_text([part.value for part in fields.objects("output")], fields.at("output"))
    if kind == "apply_patch_call_output":
        fields.only(_CALL | {"output"}, _IDLE_OF_CALLS)
        return fields.text_or("output", fields.text_or("status", "completed"))
    return None
