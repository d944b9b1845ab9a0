"""Fields that constrain the output: `response_format` and its kind, from a body to a constraint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import PlainValidator, WithJsonSchema

from engine.constraint.json_schema import closed
from engine.errors import ConfigError
from engine.exact_json import dumps
from engine.types import Constraint
from server.api.common.requests.parser import Fields
from server.api.common.schema import Schema, field
from server.chat.request import RequestedConstraint
from server.errors import missing, wrong
from server.generation.request_context import RequestContext

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


def an_object(value: Any) -> dict[str, Any]:
    """For a field that must be one."""
    if not isinstance(value, dict):
        raise ValueError("must be an object")
    return value


def _schema(value: Any) -> dict[str, Any] | bool:
    if not isinstance(value, dict | bool):
        raise ValueError("must be a JSON schema: an object")
    return value


_Format = Annotated[dict[str, Any], PlainValidator(an_object), WithJsonSchema(_FORMAT)]
_JsonSchema = Annotated[dict[str, Any] | bool, PlainValidator(_schema), WithJsonSchema(_SCHEMA)]


class StructuredFields(Schema):
    """`requested_constraint` reads them. At most one may be set."""

    response_format: _Format | None = field(
        "what the text must match: a `json_object`, `json_schema`, `regex`, `choice`, `grammar` or `text`",
        {"type": "choice", "choices": ["yes", "no"]},
    )
    grammar: str | None = field("GBNF grammar that the text must match", 'root ::= "yes" | "no"')
    json_schema: _JsonSchema | None = field(
        "JSON schema that the text must match; {}: any object", {"type": "integer"}
    )


_KNOWN = {  # fields of a response_format, by its type
    "text": (),
    "json_object": ("schema",),
    "json_schema": ("json_schema",),
    "regex": ("pattern",),
    "choice": ("choices",),
    "grammar": ("grammar", "syntax"),
}


def requested_constraint(
    body: StructuredFields, context: RequestContext, others: Sequence[RequestedConstraint] = ()
) -> RequestedConstraint | None:
    """What the output must match; None: nothing. others: of fields of further kinds.

    Several fields may ask for the same: guidance sends vLLM's newer and older names.
    """
    requested = [
        constraint
        for constraint in (
            _format(body.response_format, context),
            _grammar(body),
            _schema_field(body),
            *others,
        )
        if constraint is not None
    ]
    for other in requested[1:]:
        if other.constraint != requested[0].constraint:
            first, second = (constraint.param.split(".")[0] for constraint in (requested[0], other))
            raise wrong(second, f"cannot be combined with {first}")
    return requested[0] if requested else None


def _grammar(body: StructuredFields) -> RequestedConstraint | None:
    return RequestedConstraint(Constraint("gbnf", body.grammar), "grammar") if body.grammar else None


def _schema_field(body: StructuredFields) -> RequestedConstraint | None:
    return None if body.json_schema is None else schema_constraint(body.json_schema, "json_schema")


def schema_constraint(schema: dict[str, Any] | bool, param: str) -> RequestedConstraint:
    """{} is any object, as llama-server and Ollama have it."""
    constraint = Constraint("json_object") if schema == {} else json_schema(schema, param)
    return RequestedConstraint(constraint, param)


def _format(format: dict[str, Any] | None, context: RequestContext) -> RequestedConstraint | None:
    if format is None:
        return None
    fields = Fields(format, "response_format", context)
    kind = fields.one_of("type", tuple(_KNOWN))
    fields.only(frozenset({"type", *_KNOWN[kind]}))
    match kind:
        case "text":
            return None
        case "json_object":
            schema = fields.get("schema")
            if schema is None or schema == {}:
                return RequestedConstraint(Constraint("json_object"), fields.path)
            return RequestedConstraint(json_schema(schema, fields.at("schema")), fields.at("schema"))
        case "json_schema":
            return named_schema(Fields(fields.object("json_schema"), fields.at("json_schema"), context))
        case "regex":
            return RequestedConstraint(Constraint("regex", fields.text("pattern")), fields.at("pattern"))
        case "choice":
            at = fields.at("choices")
            return RequestedConstraint(Constraint("choice", dumps_field(fields.texts("choices"), at)), at)
    syntax, text = fields.one_of("syntax", ("gbnf", "lark"), "gbnf"), fields.text("grammar")
    return RequestedConstraint(Constraint(syntax, text), fields.at("grammar")) if text else None


def named_schema(named: Fields, beside: frozenset[str] = frozenset()) -> RequestedConstraint:
    """Of `{name, description, schema, strict}`. beside: further fields of the object."""
    named.only(frozenset({"name", "description", "schema", "strict"}) | beside)
    named.text_or("name", "")
    named.flag("strict")
    schema, at = named.get("schema"), named.at("schema")
    if schema is None:
        raise missing(at)
    return RequestedConstraint(json_schema(schema, at, lenient=named.get("strict") is False), at)


def json_schema(schema: Any, param: str, *, lenient: bool = False) -> Constraint:
    """Strict where the schema is silent. lenient: what cannot be enforced is reported, not refused."""
    if not isinstance(schema, dict | bool):
        raise wrong(param, "must be a JSON schema: an object")
    if lenient and isinstance(schema, dict):
        options = schema.get("x-guidance")
        schema = {**schema, "x-guidance": {"lenient": True, **(options if isinstance(options, dict) else {})}}
    return Constraint("json_schema", dumps_field(closed(schema), param))


def dumps_field(value: Any, param: str) -> str:
    try:
        return dumps(value)
    except ConfigError:
        raise wrong(param, "is nested too deeply, or has numbers that are too long") from None
