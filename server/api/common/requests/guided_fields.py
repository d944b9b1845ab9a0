"""Fields of other servers that constrain the output: all of them are enforced or refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import PlainValidator, WithJsonSchema

from engine import exact_json
from engine.errors import ConfigError
from engine.types import Constraint
from server.api.common.requests.parser import Fields
from server.api.common.requests.structural_tag import structural_tag
from server.api.common.requests.structured_output import (
    StructuredFields,
    an_object,
    dumps_field,
    json_schema,
    schema_constraint,
)
from server.api.common.schema import Schema, field
from server.chat.request import RequestedConstraint
from server.errors import wrong
from server.generation.request_context import RequestContext

_SCHEMA = {"anyOf": [{"type": "object"}, {"type": "boolean"}, {"type": "string"}]}
_TEXTS = {"type": "array", "items": {"type": "string"}, "minItems": 1}
_OBJECT = {"type": "object"}


def _schema(value: Any) -> dict[str, Any] | bool | str:
    if not isinstance(value, dict | bool | str):
        raise ValueError("must be a JSON schema: an object, or its text")
    return value


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
        raise ValueError("must be a list of strings, at least one")
    return value


def _tag(value: Any) -> dict[str, Any] | str:
    if not isinstance(value, dict | str):
        raise ValueError("must be an object, or its text")
    return value


_TAG = {
    "type": "structural_tag",
    "triggers": ["<f>"],
    "structures": [{"begin": "<f>", "schema": {}, "end": "</f>"}],
}
_Object = Annotated[dict[str, Any], PlainValidator(an_object), WithJsonSchema(_OBJECT)]
TagField = Annotated[
    dict[str, Any] | str, PlainValidator(_tag), WithJsonSchema({"anyOf": [_OBJECT, {"type": "string"}]})
]


class GuidedFields(Schema):
    """`guided_constraints` reads them."""

    structured_outputs: _Object | None = field(
        "vLLM: one of `json`, `json_object`, `regex`, `choice`, `grammar` (GBNF or Lark) and "
        "`structural_tag`; `disable_any_whitespace` and `whitespace_pattern` for JSON",
        {"choice": ["yes", "no"]},
    )
    guided_json: Annotated[Any, PlainValidator(_schema), WithJsonSchema(_SCHEMA)] | None = field(
        "vLLM's older name of `structured_outputs.json`", {"type": "integer"}
    )
    guided_regex: str | None = field("vLLM's older name of `structured_outputs.regex`", "[0-9]+")
    guided_choice: Annotated[list[str], PlainValidator(_texts), WithJsonSchema(_TEXTS)] | None = field(
        "vLLM's older name of `structured_outputs.choice`", ["yes", "no"]
    )
    guided_grammar: str | None = field(
        "vLLM's older name of `structured_outputs.grammar`", 'root ::= "yes" | "no"'
    )
    guided_json_object: bool | None = field("vLLM's older name of `structured_outputs.json_object`", True)
    guided_whitespace_pattern: str | None = field(
        "white space between parts of JSON, with `guided_json`", "[ ]?"
    )
    structural_tag: TagField | None = field(
        "vLLM's older name of `structured_outputs.structural_tag`: text of which parts between tags are JSON",
        _TAG,
    )
    regex: str | None = field("SGLang's regular expression that the text must match", "[0-9]+")
    ebnf: str | None = field("SGLang's grammar (GBNF or Lark) that the text must match", 'root ::= "yes"')
    format: Literal["", "json"] | dict[str, Any] | None = field(
        "Ollama's JSON schema, or `json` for any JSON object", "json"
    )


OUTPUT_FIELDS = GuidedFields.model_fields.keys() | StructuredFields.model_fields.keys()

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


def guided_constraints(body: GuidedFields, context: RequestContext) -> list[RequestedConstraint]:
    """One for each field that constrains the output."""
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
        return (_schema if kind == "json" else _tag)(fields.get(kind))
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
    """A schema with options of how white space is written."""
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
    """Rules of Lark have one colon. What stands in quotes or behind `#` and `//` is no rule."""
    bare = re.sub(r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|(?:#|//).*', "", grammar)
    return "::=" in bare
