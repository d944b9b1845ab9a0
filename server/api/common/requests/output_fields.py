"""Fields that constrain the output: those of OpenAI and llama-server, and those of other servers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import PlainValidator, WithJsonSchema

from server.api.common.schema import Schema, field

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


def _an_object(value: Any) -> dict[str, Any]:
    """The value, which must be an object."""
    if not isinstance(value, dict):
        raise ValueError("must be an object")
    return value


def _schema(value: Any) -> dict[str, Any] | bool:
    if not isinstance(value, dict | bool):
        raise ValueError("must be a JSON schema: an object")
    return value


_Format = Annotated[dict[str, Any], PlainValidator(_an_object), WithJsonSchema(_FORMAT)]
_JsonSchema = Annotated[dict[str, Any] | bool, PlainValidator(_schema), WithJsonSchema(_SCHEMA)]


class StructuredFields(Schema):
    """The fields that `requested_constraint` reads. At most one may be set."""

    response_format: _Format | None = field(
        "constraint on the output: a `json_object`, `json_schema`, `regex`, `choice`, `grammar` or `text`",
        {"type": "choice", "choices": ["yes", "no"]},
    )
    grammar: str | None = field("GBNF grammar that the output must match", 'root ::= "yes" | "no"')
    json_schema: _JsonSchema | None = field(
        "JSON schema that the output must match; {}: any object", {"type": "integer"}
    )


_SCHEMA_OR_TEXT = {"anyOf": [{"type": "object"}, {"type": "boolean"}, {"type": "string"}]}
_TEXTS = {"type": "array", "items": {"type": "string"}, "minItems": 1}
_OBJECT = {"type": "object"}


def schema_or_text(value: Any) -> dict[str, Any] | bool | str:
    if not isinstance(value, dict | bool | str):
        raise ValueError("must be a JSON schema: an object, or its text")
    return value


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
        raise ValueError("must be a list of strings, at least one")
    return value


def tag_or_text(value: Any) -> dict[str, Any] | str:
    if not isinstance(value, dict | str):
        raise ValueError("must be an object, or its text")
    return value


_TAG = {
    "type": "structural_tag",
    "triggers": ["<f>"],
    "structures": [{"begin": "<f>", "schema": {}, "end": "</f>"}],
}
_SchemaOrText = Annotated[Any, PlainValidator(schema_or_text), WithJsonSchema(_SCHEMA_OR_TEXT)]
_Object = Annotated[dict[str, Any], PlainValidator(_an_object), WithJsonSchema(_OBJECT)]
TagField = Annotated[
    dict[str, Any] | str,
    PlainValidator(tag_or_text),
    WithJsonSchema({"anyOf": [_OBJECT, {"type": "string"}]}),
]


class GuidedFields(Schema):
    """The fields of vLLM, SGLang and Ollama; all of them are enforced or refused."""

    structured_outputs: _Object | None = field(
        "vLLM: one of `json`, `json_object`, `regex`, `choice`, `grammar` (GBNF or Lark) and "
        "`structural_tag`; `disable_any_whitespace` and `whitespace_pattern` for JSON",
        {"choice": ["yes", "no"]},
    )
    guided_json: _SchemaOrText | None = field(
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
        "allowed white space between parts of JSON, with `guided_json`", "[ ]?"
    )
    structural_tag: TagField | None = field(
        "vLLM's older name of `structured_outputs.structural_tag`: text whose parts between tags are JSON",
        _TAG,
    )
    regex: str | None = field("SGLang's field: regular expression that the output must match", "[0-9]+")
    ebnf: str | None = field(
        "SGLang's field: grammar (GBNF or Lark) that the output must match", 'root ::= "yes"'
    )
    format: Literal["", "json"] | dict[str, Any] | None = field(
        "Ollama's field: JSON schema, or `json` for any JSON object", "json"
    )


OUTPUT_FIELDS = GuidedFields.model_fields.keys() | StructuredFields.model_fields.keys()
