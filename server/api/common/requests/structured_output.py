"""Fields that constrain the output: `response_format` and its kind, from a body to a constraint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

from pydantic import PlainValidator, WithJsonSchema

from engine.constraint.json_schema import closed
from engine.errors import ConfigError
from engine.exact_json import dumps
from engine.types import Constraint
from server.api.common.schema import Schema, field
from server.chat.request import RequestedConstraint
from server.errors import bad_request
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


_KINDS = ("text", "json_object", "json_schema", "regex", "choice", "grammar")
_SYNTAXES = ("gbnf", "lark")
_NAMES: dict[type[Any], str] = {str: "a string", list: "a list", dict: "an object"}
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
    """What the output must match; None: nothing. others: of fields of further kinds."""
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
    if len(requested) > 1:
        first, second = (constraint.param.split(".")[0] for constraint in requested[:2])
        _wrong(second, f"cannot be combined with {first}")
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
    at, kind = "response_format", format.get("type")
    if kind is None:
        raise bad_request(f"{at}.type: is required", f"{at}.type", "missing_field")
    if kind not in _KINDS:
        _wrong(f"{at}.type", f"must be one of {', '.join(_KINDS)}")
    _unknown(format, ("type", *_KNOWN[kind]), at, context)
    match kind:
        case "text":
            return None
        case "json_object":
            schema = format.get("schema")
            if schema is None or schema == {}:
                return RequestedConstraint(Constraint("json_object"), at)
            return RequestedConstraint(json_schema(schema, f"{at}.schema"), f"{at}.schema")
        case "json_schema":
            return named_schema(_required(format, "json_schema", dict, at), f"{at}.json_schema", context)
        case "regex":
            return RequestedConstraint(
                Constraint("regex", _required(format, "pattern", str, at)), f"{at}.pattern"
            )
        case "choice":
            choices = _required(format, "choices", list, at)
            if not choices or not all(isinstance(choice, str) for choice in choices):
                _wrong(f"{at}.choices", "must be a list of strings, at least one")
            return RequestedConstraint(
                Constraint("choice", dumps_field(choices, f"{at}.choices")), f"{at}.choices"
            )
    syntax = format.get("syntax", "gbnf")
    if syntax not in _SYNTAXES:
        _wrong(f"{at}.syntax", f"must be one of {', '.join(_SYNTAXES)}")
    text = _required(format, "grammar", str, at)
    return RequestedConstraint(Constraint(syntax, text), f"{at}.grammar") if text else None


def named_schema(named: dict[str, Any], at: str, context: RequestContext) -> RequestedConstraint:
    """Of `{name, description, schema, strict}`, which is the field `at`."""
    _unknown(named, ("name", "description", "schema", "strict"), at, context)
    for name, kind, what in (("name", str, "a string"), ("strict", bool, "true or false")):
        if not isinstance(named.get(name), kind | None):
            _wrong(f"{at}.{name}", f"must be {what}")
    if named.get("schema") is None:
        raise bad_request(f"{at}.schema: is required", f"{at}.schema", "missing_field")
    lenient = named.get("strict") is False
    return RequestedConstraint(json_schema(named["schema"], f"{at}.schema", lenient=lenient), f"{at}.schema")


def json_schema(schema: Any, param: str, *, lenient: bool = False) -> Constraint:
    """Strict where the schema is silent. lenient: what cannot be enforced is reported, not refused."""
    if not isinstance(schema, dict | bool):
        _wrong(param, "must be a JSON schema: an object")
    if lenient and isinstance(schema, dict):
        options = schema.get("x-guidance")
        schema = {**schema, "x-guidance": {"lenient": True, **(options if isinstance(options, dict) else {})}}
    return Constraint("json_schema", dumps_field(closed(schema), param))


def _required(format: dict[str, Any], name: str, kind: type[Any], at: str) -> Any:
    value = format.get(name)
    if value is None:
        raise bad_request(f"{at}.{name}: is required", f"{at}.{name}", "missing_field")
    if not isinstance(value, kind):
        _wrong(f"{at}.{name}", f"must be {_NAMES[kind]}")
    return value


def dumps_field(value: Any, param: str) -> str:
    try:
        return dumps(value)
    except ConfigError:
        _wrong(param, "is nested too deeply, or has numbers that are too long")


def _unknown(fields: dict[str, Any], known: tuple[str, ...], at: str, context: RequestContext) -> None:
    for name, value in fields.items():
        if name not in known and value is not None:
            context.warn(f"{at}.{name[:64]} has no effect")


def _wrong(param: str, what: str) -> NoReturn:
    raise bad_request(f"{param}: {what}", param, "invalid_value")
