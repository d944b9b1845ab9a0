"""Turns the fields that constrain the output into a constraint."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from engine import exact_json
from engine.errors import ConfigError
from engine.types import Constraint
from server.api.common.requests.output_fields import (
    GuidedFields,
    StructuredFields,
    schema_or_text,
    tag_or_text,
)
from server.api.common.requests.parser import Fields, dumps_field, json_schema
from server.api.common.requests.structural_tag import structural_tag
from server.chat.request import RequestedConstraint
from server.errors import missing, wrong
from server.generation.request_context import RequestContext

_FORMATS = {  # fields of a response_format, by its type
    "text": (),
    "json_object": ("schema",),
    "json_schema": ("json_schema",),
    "regex": ("pattern",),
    "choice": ("choices",),
    "grammar": ("grammar", "syntax"),
}


# Those of `guided_*` and SGLang, by the name of the field in `structured_outputs`.
_NAMES = {
    "guided_json": "json",
    "guided_regex": "regex",
    "guided_choice": "choice",
    "guided_grammar": "grammar",
    "guided_json_object": "json_object",
    "structural_tag": "structural_tag",
    "regex": "regex",
    "ebnf": "grammar",
}
_KINDS = ("json", "json_object", "regex", "choice", "grammar", "structural_tag")
_OPTIONS = frozenset({"disable_any_whitespace", "whitespace_pattern"})
# Our schemas are closed anyway, and nothing falls back here.
_IDLE = frozenset({"disable_additional_properties", "disable_fallback", "_backend", "_backend_was_auto"})


def requested_constraint(body: StructuredFields, context: RequestContext) -> RequestedConstraint | None:
    """The constraint on the output; None if the request sets none.

    Several fields may have the same meaning: guidance sends vLLM's newer and older names.
    """
    others = _guided(body, context) if isinstance(body, GuidedFields) else []
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
    """The constraint of a schema; {} means any object, as in llama-server and Ollama."""
    constraint = Constraint("json_object") if schema == {} else json_schema(schema, param)
    return RequestedConstraint(constraint, param)


def _format(format: dict[str, Any] | None, context: RequestContext) -> RequestedConstraint | None:
    if format is None:
        return None
    fields = Fields(format, "response_format", context)
    kind = fields.one_of("type", tuple(_FORMATS))
    fields.only(frozenset({"type", *_FORMATS[kind]}))
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
    """The constraint of `{name, description, schema, strict}`. beside: further fields of the object."""
    named.only(frozenset({"name", "description", "schema", "strict"}) | beside)
    named.text_or("name", "")
    named.flag("strict")
    schema, at = named.get("schema"), named.at("schema")
    if schema is None:
        raise missing(at)
    return RequestedConstraint(json_schema(schema, at, lenient=named.get("strict") is False), at)


def _guided(body: GuidedFields, context: RequestContext) -> list[RequestedConstraint]:
    """One constraint for each field that constrains the output."""
    constraints = []
    spacing: dict[str, Any] = {}
    if body.guided_whitespace_pattern is not None:
        spacing["whitespace_pattern"] = body.guided_whitespace_pattern
        if body.guided_json is None and not body.guided_json_object:
            context.warn("guided_whitespace_pattern has no effect without guided_json")
    for name, kind in _NAMES.items():
        value = getattr(body, name)
        if value is not None and value is not False:
            constraints.append(_constraint(kind, value, name, spacing, context))
    if body.format is not None and body.format != "":
        constraints.append(schema_constraint({} if body.format == "json" else body.format, "format"))
    if body.structured_outputs is not None:
        constraints.append(
            _structured_outputs(Fields(body.structured_outputs, "structured_outputs", context))
        )
    return constraints


def _structured_outputs(fields: Fields) -> RequestedConstraint:
    fields.only(frozenset(_KINDS) | _OPTIONS, _IDLE)
    kinds = [kind for kind in _KINDS if fields.get(kind) is not None and fields.get(kind) is not False]
    if len(kinds) != 1:
        raise wrong(fields.path, f"must have one of {', '.join(_KINDS)}, not {len(kinds)} of them")
    kind = kinds[0]
    spacing: dict[str, Any] = {}
    if fields.flag("disable_any_whitespace"):
        spacing["whitespace_flexible"] = False
    if fields.get("whitespace_pattern") is not None:
        spacing["whitespace_pattern"] = fields.text("whitespace_pattern")
    if spacing and kind not in ("json", "json_object"):
        fields.context.warn(f"{fields.path}: {', '.join(sorted(_OPTIONS))} have no effect without json")
    return _constraint(kind, _checked(fields, kind), fields.at(kind), spacing, fields.context)


def _checked(fields: Fields, kind: str) -> Any:
    if kind in ("regex", "grammar"):
        return fields.text(kind)
    if kind == "json_object":
        return fields.flag(kind)
    if kind == "choice":
        return fields.texts(kind)
    try:
        return (schema_or_text if kind == "json" else tag_or_text)(fields.get(kind))
    except ValueError as error:
        raise wrong(fields.at(kind), str(error)) from None


def _constraint(
    kind: str, value: Any, at: str, spacing: Mapping[str, Any], context: RequestContext
) -> RequestedConstraint:
    if kind in ("json", "structural_tag") and isinstance(value, str):
        value = _parsed(value, at)
    match kind:
        case "json":
            return RequestedConstraint(json_schema(_spaced(value, spacing), at), at)
        case "json_object" if spacing:
            return RequestedConstraint(json_schema(_spaced({"type": "object"}, spacing), at), at)
        case "json_object":
            return RequestedConstraint(Constraint("json_object"), at)
        case "regex":
            return RequestedConstraint(Constraint("regex", value), at)
        case "choice":
            return RequestedConstraint(Constraint("choice", dumps_field(value, at)), at)
        case "structural_tag":
            return structural_tag(value, at, context)
    if not value.strip():
        raise wrong(at, "is empty")
    return RequestedConstraint(Constraint("gbnf" if _is_gbnf(value) else "lark", value), at)


def _spaced(schema: Any, spacing: Mapping[str, Any]) -> Any:
    """A schema with options for the white space of the output."""
    if not spacing:
        return schema
    if not isinstance(schema, dict):
        schema = {"anyOf": [schema]}
    options = schema.get("x-guidance")
    return {**schema, "x-guidance": {**(options if isinstance(options, dict) else {}), **spacing}}


def _parsed(text: str, at: str) -> Any:
    try:
        return exact_json.loads(text)
    except ConfigError:
        raise wrong(at, "is not valid JSON") from None


def _is_gbnf(grammar: str) -> bool:
    """Whether a grammar is GBNF: in Lark, rules have a single colon. Quoted text and comments (`#`, `//`) are
    not rules.
    """
    bare = re.sub(r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|(?:#|//).*', "", grammar)
    return "::=" in bare
