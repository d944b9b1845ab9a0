"""The request fields of /v1/embeddings, shared with llama-server's /embeddings and /embedding."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import PlainValidator, WithJsonSchema

from server.api.common.requests.generation_fields import IDS_SCHEMA, is_token
from server.api.common.schema import INT_MAX, Reply, Schema, field, required
from server.errors import wrong
from server.input.task_inputs import Input

Pooling = Literal["none", "mean", "cls", "last", "rank"]


def _parts(value: Any) -> Input:
    """The parts of one input: a text, token ids, a mix of both, or an object that contains either."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [_text_of(value)]
    if not isinstance(value, list):
        raise ValueError("must be a string, a list of token ids, or a list of either")
    parts: Input = []
    for item in value:
        if isinstance(item, str):
            parts.append(item)
        elif not is_token(item):
            raise ValueError("a list of token ids contains something else")
        elif parts and isinstance(parts[-1], list):
            parts[-1].append(item)
        else:
            parts.append([item])
    return parts


def _text_of(value: dict[str, Any]) -> str:
    """The text in {"prompt_string": …} or {"content": [{"type": "text", "text": …}]}."""
    fields = {name: item for name, item in value.items() if item not in (None, [])}
    match fields:
        case {"prompt_string": str(text), **rest} if not rest:
            return text
        case {"content": list(parts), **rest} if not rest:
            return "".join(_part(part) for part in parts)
    raise ValueError("an object needs either `prompt_string`, a text, or `content`, a list of text parts")


def _part(value: Any) -> str:
    match value:
        case {"type": "text", "text": str(text)}:
            return text
    raise ValueError("only parts of type text are supported")


def _inputs(value: Any) -> list[Input]:
    if not isinstance(value, list):
        return [_parts(value)]
    if not value:
        raise ValueError("the list is empty")
    if any(isinstance(item, int | float) and not isinstance(item, bool) for item in value):
        return [_parts(value)]
    return [_parts(item) for item in value]


_OBJECT = {
    "type": "object",
    "properties": {
        "prompt_string": {"type": "string"},
        "content": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
                "required": ["type", "text"],
            },
        },
    },
}
_PARTS = {"type": "array", "items": {"anyOf": [{"type": "string"}, IDS_SCHEMA["items"]]}}
_ITEM = {"anyOf": [{"type": "string"}, _PARTS, _OBJECT]}
InputField = Annotated[
    list[Input],
    PlainValidator(_inputs),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                _PARTS,
                _OBJECT,
                {"type": "array", "items": _ITEM, "minItems": 1},
            ]
        }
    ),
]


class TruncationFields(Schema):
    """Inputs that are too long for the model are refused unless one of these fields truncates them."""

    truncate_prompt_tokens: int | None = field(
        "truncate longer inputs to their first N tokens, with a warning; -1: to as many as the model takes",
        -1,
        ge=-1,
        le=INT_MAX,
    )
    truncate: bool | None = field("true: as `truncate_prompt_tokens: -1`", True)

    def cut_to(self) -> int | None:
        """The limit in the form that `server.input.task_inputs` takes. Raises ApiError (400)."""
        if self.truncate_prompt_tokens == 0:
            raise wrong("truncate_prompt_tokens", "must be at least 1, or -1 for as many as the model takes")
        if self.truncate is False and self.truncate_prompt_tokens is not None:
            raise wrong("truncate", "false contradicts truncate_prompt_tokens; send one of them")
        return -1 if self.truncate and self.truncate_prompt_tokens is None else self.truncate_prompt_tokens


class EmbeddingRequest(TruncationFields):
    model: str | None = field("optional if only one model is served", "stories", max_length=512)
    input: InputField | None = field(
        "text, token ids, or a list of either; also llama-server's objects with `prompt_string` or `content`",
        ["Once upon a time", "a little cat"],
    )
    content: InputField | None = field(
        "in place of `input`: the response then has llama-server's format, on any of the routes",
        "Once upon a time",
    )
    encoding_format: Literal["float", "base64"] | None = field(
        "base64: of little-endian float32 (default float)", "base64"
    )
    dimensions: int | None = field(
        "truncate vectors to this many dimensions and renormalize them; for models trained for it",
        256,
        ge=1,
        le=INT_MAX,
    )
    pooling: Pooling | None = field(
        "how token vectors are pooled: `mean`, `cls` (the first), `last`, `none` (all of them; not on "
        "/v1/embeddings), `rank` (scores; see /v1/rerank); default: --pooling, else that of the model file",
        "mean",
    )
    normalize: bool | None = field(
        "normalize vectors to length 1 (default: true, but false with pooling `none`)", True
    )
    embd_normalize: int | None = field(
        "normalization as in llama-server: -1: none, 0: largest absolute value 32760, 1: 1-norm, 2: "
        "Euclidean norm, p: p-norm (default: 2, but -1 with pooling `none`)",
        2,
        ge=-1,
        le=1024,
    )
    timeout_ms: int | None = field(
        "time limit for queueing and computation together", 60000, ge=1, le=INT_MAX
    )


class NativeEmbedding(Reply):
    """An item of llama-server's response, which is a list. Warnings are in the header `x-warnings`."""

    index: int = required("the input's place", 0)
    embedding: list[list[float]] = required(
        "the input's vector; with pooling `none`, one per token", [[0.6, -0.8]]
    )
