"""Items of a response's input and output: parsing, and conversion to chat messages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from server.api.common.requests.json_reader import Fields, missing, no_media, objects, unsupported, wrong
from server.errors import ApiError
from server.generation.request_context import RequestContext
from server.ids import new_id

Item = dict[str, Any]
MAX_ITEMS = 4096
_STATES = ("completed", "incomplete", "in_progress")
_ROLES = ("user", "assistant", "system", "developer")
_TEXTS = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}
_COMMON = frozenset({"type", "id", "status"})
# Fields of our own items, which clients send back.
_IDLE = frozenset({"annotations", "logprobs", "parsed", "parsed_arguments", "created_by"})
_PREFIXES = {"message": "msg_", "function_call": "fc_", "function_call_output": "fco_", "reasoning": "rs_"}


class ItemReader:
    """Reads the input of one request. lookup: finds items of stored responses; calls: known call ids."""

    def __init__(
        self, lookup: Callable[[str], Item | None], calls: Iterable[str], context: RequestContext
    ) -> None:
        self.lookup, self.calls, self.context = lookup, set(calls), context

    def read(self, value: str | list[Any] | None) -> list[Item]:
        """Checked items, each with an id."""
        if value is None:
            return []
        if isinstance(value, str):
            text = [{"type": "input_text", "text": value}]
            return [_item("message", None, status="completed", role="user", content=text)]
        if len(value) > MAX_ITEMS:
            raise wrong("input", f"may hold at most {MAX_ITEMS} items, not {len(value)}")
        return [self._read(fields) for fields in objects(value, "input", self.context)]

    def _read(self, fields: Fields) -> Item:
        kind = fields.text_or("type", "message" if fields.get("role") is not None else "item_reference")
        if kind == "message":
            return self._message(fields)
        if kind == "function_call":
            return self._call(fields)
        if kind == "function_call_output":
            return self._output(fields)
        if kind == "reasoning":
            return self._reasoning(fields)
        if kind == "item_reference":
            return self._reference(fields)
        raise unsupported(fields.at("type"), f"items of type {kind[:64]!r} are not supported by this server")

    def _message(self, fields: Fields) -> Item:
        role = fields.one_of("role", _ROLES)
        fields.only(_COMMON | {"role", "content"}, _IDLE)
        own = "output_text" if role == "assistant" else "input_text"
        content = fields.get("content")
        if content is None:
            raise missing(fields.at("content"))
        extra: Item = {"annotations": []} if role == "assistant" else {}
        parts = [{"type": own, "text": text, **extra} for text in _texts(fields, "content")]
        status = fields.one_of("status", _STATES, "completed")
        return _item("message", _id(fields), status=status, role=role, content=parts)

    def _call(self, fields: Fields) -> Item:
        fields.only(_COMMON | {"call_id", "name", "arguments"}, _IDLE)
        call = fields.text("call_id")
        self.calls.add(call)
        name, arguments = fields.text("name"), fields.text("arguments")
        return _item(
            "function_call", _id(fields), call_id=call, name=name, arguments=arguments, status="completed"
        )

    def _output(self, fields: Fields) -> Item:
        fields.only(_COMMON | {"call_id", "output"}, _IDLE)
        call = fields.text("call_id")
        if call not in self.calls:
            raise wrong(fields.at("call_id"), f"no function call {call[:128]!r} comes before it")
        if fields.get("output") is None:
            raise missing(fields.at("output"))
        output = "\n".join(_texts(fields, "output"))
        return _item("function_call_output", _id(fields), call_id=call, output=output, status="completed")

    def _reasoning(self, fields: Fields) -> Item:
        fields.only(_COMMON | {"summary", "content", "encrypted_content"})
        if fields.get("encrypted_content") is not None:
            message = "cannot be decrypted here; send the item's content instead"
            raise unsupported(fields.at("encrypted_content"), message)
        parts = {
            name: [part.text("text") for part in fields.objects(name)] for name in ("summary", "content")
        }
        return _item(
            "reasoning",
            _id(fields),
            summary=[{"type": "summary_text", "text": text} for text in parts["summary"]],
            content=[{"type": "reasoning_text", "text": text} for text in parts["content"]],
        )

    def _reference(self, fields: Fields) -> Item:
        fields.only(_COMMON)
        id = fields.text("id")
        item = self.lookup(id)
        if item is None:
            message = f"no stored response has an item {id[:128]!r}; send the item itself"
            raise wrong(fields.at("id"), message)
        if item["type"] == "function_call":
            self.calls.add(item["call_id"])
        return item


def _item(kind: str, id: str | None, **fields: Any) -> Item:
    return {"id": id or new_id(_PREFIXES[kind]), "type": kind, **fields}


def _id(fields: Fields) -> str | None:
    id = fields.text_or("id", "")
    if len(id) > 256:
        raise wrong(fields.at("id"), "may have at most 256 characters")
    return id or None


def _texts(fields: Fields, name: str) -> list[str]:
    """A text, or the texts of a list of parts."""
    if isinstance(fields.get(name), str):
        return [fields.text(name)]
    texts = []
    for part in fields.objects(name):
        kind = part.text("type")
        if kind not in _TEXTS:
            raise no_media(part.at("type"), kind)
        part.only(frozenset({"type", _TEXTS[kind]}), _IDLE)
        texts.append(part.text(_TEXTS[kind]))
    return texts


def call_ids(items: Iterable[Item]) -> Iterable[str]:
    """The ids of tool calls."""
    return (item["call_id"] for item in items if item["type"] == "function_call")


def chat_messages(items: Sequence[Item], instructions: str | None) -> list[dict[str, Any]]:
    """Chat messages. An assistant's reasoning, text and calls, in that order, are one message."""
    messages: list[dict[str, Any]] = []
    turn: dict[str, Any] | None = None  # the assistant's message that may still grow
    for item in items:
        kind = item["type"]
        if kind == "function_call_output":
            result = {"role": "tool", "tool_call_id": item["call_id"], "content": item["output"]}
            messages.append(result)
            turn = None
        elif kind == "message" and item["role"] != "assistant":
            messages.append({"role": item["role"], "content": _content(item)})
            turn = None
        else:
            if turn is None or not _fits(turn, item):
                turn = {"role": "assistant", "content": None}
                messages.append(turn)
            _extend(turn, item)
    if instructions is not None:
        _instruct(messages, instructions)
    return messages


def _fits(turn: dict[str, Any], item: Item) -> bool:
    if item["type"] == "function_call":
        return True
    return "tool_calls" not in turn and turn["content"] is None


def _extend(turn: dict[str, Any], item: Item) -> None:
    if item["type"] == "message":
        turn["content"] = _content(item)
    elif item["type"] == "reasoning":
        parts = item["content"] or item["summary"]
        text = "\n".join(part["text"] for part in parts)
        before = turn.get("reasoning_content")
        turn["reasoning_content"] = text if before is None else f"{before}\n{text}"
    else:
        function = {"name": item["name"], "arguments": item["arguments"]}
        call = {"id": item["call_id"], "type": "function", "function": function}
        turn.setdefault("tool_calls", []).append(call)


def _content(item: Item) -> Any:
    texts = [part["text"] for part in item["content"]]
    if len(texts) < 2:
        return texts[0] if texts else ""
    return [{"type": "text", "text": text} for text in texts]


def _instruct(messages: list[dict[str, Any]], instructions: str) -> None:
    """Insert at the beginning, or prepend to a system message there: most templates accept only one."""
    first = messages[0] if messages else {"role": "user"}
    if first["role"] not in ("system", "developer"):
        messages.insert(0, {"role": "system", "content": instructions})
        return
    text = first["content"]
    if not isinstance(text, str):
        text = "\n".join(part["text"] for part in text)
    messages[0] = {"role": first["role"], "content": f"{instructions}\n\n{text}"}


def continues_last(items: Sequence[Item]) -> bool:
    """Whether the answer continues the last item: an incomplete message of the assistant."""
    if not items or items[-1]["type"] != "message" or items[-1]["role"] != "assistant":
        return False
    status: str = items[-1]["status"]
    return status != "completed"


def not_stored(id: str, param: str) -> ApiError:
    message = f"{param}: no response {id[:128]!r} is stored; it may have expired"
    return ApiError(404, message, param=param, code="response_not_found")
