"""Fields that say what the text of an answer must match."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import PlainValidator, WithJsonSchema

from server.api.common.generation_fields import Schema, field

_TYPE = {"type": "string"}
_SCHEMA = {"anyOf": [{"type": "object"}, {"type": "boolean"}]}


def _variant(kind: str, required: list[str], **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"type": {"const": kind}, **properties},
        "required": ["type", *required],
    }


_NAMED_SCHEMA = {
    "type": "object",
    "properties": {"name": _TYPE, "schema": _SCHEMA, "strict": {"type": "boolean"}},
    "required": ["schema"],
}
_FORMAT = {
    "oneOf": [
        _variant("text", []),
        _variant("json_object", [], schema=_SCHEMA),
        _variant("json_schema", ["json_schema"], json_schema=_NAMED_SCHEMA),
        _variant("regex", ["pattern"], pattern=_TYPE),
        _variant("choice", ["choices"], choices={"type": "array", "items": _TYPE, "minItems": 1}),
        _variant("grammar", ["grammar"], grammar=_TYPE, syntax={"enum": ["gbnf", "lark"]}),
    ]
}


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("must be an object")
    return value


def _schema(value: Any) -> dict[str, Any] | bool:
    if not isinstance(value, dict | bool):
        raise ValueError("must be a JSON schema: an object")
    return value


_Format = Annotated[dict[str, Any], PlainValidator(_object), WithJsonSchema(_FORMAT)]
_JsonSchema = Annotated[dict[str, Any] | bool, PlainValidator(_schema), WithJsonSchema(_SCHEMA)]


class StructuredFields(Schema):
    """`server.input.constraints.asked_of` reads them. One of them at a time."""

    response_format: _Format | None = field(
        "what the text must match: a `json_object`, `json_schema`, `regex`, `choice`, `grammar` or `text`",
        {"type": "choice", "choices": ["yes", "no"]},
    )
    grammar: str | None = field("GBNF grammar that the text must match", 'root ::= "yes" | "no"')
    json_schema: _JsonSchema | None = field(
        "JSON schema that the text must match; {}: any object", {"type": "integer"}
    )
