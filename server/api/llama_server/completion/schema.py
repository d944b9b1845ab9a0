"""POST /completion and /infill: llama-server's request and response."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import Field, PlainValidator, WithJsonSchema

from server.api.common.replies.schema import TimingsReply
from server.api.common.requests.generation_fields import (
    IDS_SCHEMA,
    MAX_LOGIT_BIAS,
    SamplingFields,
    StreamOptions,
    is_token,
)
from server.api.common.requests.output_fields import StructuredFields
from server.api.common.schema import INT_MAX, Reply, Schema, field, required

MAX_PROMPTS = 4096
MAX_FIELDS, MAX_EXTRA = 64, 1024
MAX_BIAS = 1e6
MAX_BIAS_CHARS = 1 << 16
Part = str | int
Prompts = list[list[Part]]
_MIXED = "must be a string, token ids, a list of both, an object with prompt_string, or a list of these"


def _prompt(value: Any) -> list[Part]:
    """One prompt as texts and token ids, in order."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value and all(isinstance(p, str) or is_token(p) for p in value):
        return value
    if isinstance(value, dict) and isinstance(value.get("prompt_string"), str):
        if value.get("multimodal_data") not in (None, []):
            raise ValueError("multimodal_data is not supported by this model; send text")
        return [value["prompt_string"]]
    raise ValueError(_MIXED)


def _prompts(value: Any) -> Prompts:
    """The prompts. A list without token ids is a list of prompts; a list with one is a single prompt."""
    if not isinstance(value, list) or any(map(is_token, value)):
        return [_prompt(value)]
    if not value:
        raise ValueError("the list is empty")
    if len(value) > MAX_PROMPTS:
        raise ValueError(f"may hold at most {MAX_PROMPTS} prompts, not {len(value)}")
    return [_prompt(item) for item in value]


def _bias_entry(token: Any, bias: Any) -> tuple[int | str, float]:
    if isinstance(token, str) and token.isascii() and token.isdigit() and len(token) <= 10:
        token = int(token)
    if not is_token(token) and not (isinstance(token, str) and token):
        raise ValueError("every key must be a token id or a text")
    if bias is False:
        return token, -math.inf
    if isinstance(bias, bool) or not isinstance(bias, int | float) or not abs(bias) <= MAX_BIAS:
        raise ValueError(f"a bias must be a number from {-MAX_BIAS:g} to {MAX_BIAS:g}, or false")
    return token, float(bias)


def _biases(value: Any) -> list[tuple[int | str, float]]:
    """Biases from a map or pairs, for token ids or for the tokens of a text; false bans."""
    pairs = list(value.items()) if isinstance(value, dict) else value
    if not isinstance(pairs, list):
        raise ValueError("must be a map or a list of pairs")
    if len(pairs) > MAX_LOGIT_BIAS:
        raise ValueError(f"may hold at most {MAX_LOGIT_BIAS} entries, not {len(pairs)}")
    if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        raise ValueError("every item must be a pair: a token id or a text, and a number or false")
    entries = [_bias_entry(*pair) for pair in pairs]
    if sum(len(token) for token, _ in entries if isinstance(token, str)) > MAX_BIAS_CHARS:
        raise ValueError(f"its texts may hold at most {MAX_BIAS_CHARS} characters in all")
    return entries


_ID: Any = IDS_SCHEMA["items"]
_OBJECT = {
    "type": "object",
    "properties": {"prompt_string": {"type": "string"}},
    "required": ["prompt_string"],
}
_ONE = [{"type": "string"}, {"type": "array", "items": {"anyOf": [{"type": "string"}, _ID]}}, _OBJECT]
_NUMBER = {"anyOf": [{"type": "number", "minimum": -MAX_BIAS, "maximum": MAX_BIAS}, {"const": False}]}
_PAIR = {"type": "array", "prefixItems": [{"type": ["integer", "string"]}, _NUMBER]}
PromptField = Annotated[
    Prompts,
    PlainValidator(_prompts),
    WithJsonSchema({"anyOf": [*_ONE, {"type": "array", "items": {"anyOf": _ONE}}]}),
]
BiasField = Annotated[
    list[tuple[int | str, float]],
    PlainValidator(_biases),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "object", "additionalProperties": _NUMBER},
                {"type": "array", "items": _PAIR, "maxItems": MAX_LOGIT_BIAS},
            ]
        }
    ),
]
Name = Annotated[str, Field(max_length=256)]
_UNLIMITED = "-1: until the model ends it or the context is full"


def _neutral(what: str, example: Any, **bounds: Any) -> Any:
    """A field of llama-server that is not supported; at its neutral value it causes no warning."""
    return field(f"{what}: accepted, with a warning where it would change something", example, **bounds)


class NativeFields(StructuredFields, SamplingFields):
    """The fields that /completion and /infill share."""

    random_seed = -1
    n_predict: int | None = field(f"tokens to generate; {_UNLIMITED}; 0: none", 64, ge=-1, le=INT_MAX)
    max_tokens: int | None = field("another name of `n_predict`", 64, ge=-1, le=INT_MAX)
    max_completion_tokens: int | None = field("another name of `n_predict`", 64, ge=-1, le=INT_MAX)
    n: int | None = field("completions per prompt (default 1)", 1, ge=1, le=INT_MAX)
    n_cmpl: int | None = field("another name of `n`", 1, ge=1, le=INT_MAX)
    stream_options: StreamOptions | None = field(
        "no effect: the last event has all counts", {"include_usage": True}
    )
    logit_bias: BiasField | None = field(  # type: ignore[assignment]  # more than the OpenAI routes take
        "map or pairs: token id or text → number added to the logits; false bans it",
        [[263, 1.5], [" the", False]],
    )
    n_probs: int | None = field(
        "also return the probabilities of the N most likely tokens at each position", 5, ge=0, le=20
    )
    logprobs: int | None = field("another name of `n_probs`", 5, ge=0, le=20)
    post_sampling_probs: bool | None = field(
        "return probabilities after truncation and temperature instead of the model's own", False
    )
    response_fields: list[Name] | None = field(
        "return only these fields; a/b: field b of field a",
        ["content", "timings/predicted_per_second"],
        max_length=MAX_FIELDS,
    )
    t_max_predict_ms: int | None = field(
        "stop at the first line break after this many milliseconds of generating; -1: off",
        1000,
        ge=-1,
        le=2**53,
    )

    n_discard: int | None = field(
        "with --context-shift: number of tokens after the first `n_keep` that are dropped when the context "
        "is full; 0: half of them",
        0,
        ge=0,
        le=INT_MAX,
    )
    n_cache_reuse: int | None = _neutral("reuse of shifted prefixes", 0, ge=0, le=INT_MAX)
    n_indent: int | None = _neutral("minimum indentation of lines", 0, ge=0, le=INT_MAX)
    backend_sampling: bool | None = _neutral("sampling on a device", False)


class NativeRequest(NativeFields):
    prompt: PromptField = required(
        "text, token ids, a mix of both, `{prompt_string}`, or a list of these", "Once upon a time"
    )


class Extra(Schema):
    """An excerpt of another file."""

    text: str = required("its text", "int n_threads();\n")
    filename: str | None = field("its name", "llama.h", max_length=4096)


class InfillRequest(NativeFields):
    input_prefix: str = required("the text before the gap", "def add(a, b):\n")
    input_suffix: str = required("the text after the gap", "\n\nprint(add(1, 2))\n")
    input_extra: list[Extra] | None = field(
        "excerpts of other files", [{"filename": "llama.h", "text": "…"}], max_length=MAX_EXTRA
    )
    prompt: str | None = field("text that is already at the beginning of the gap", "    return ")


class ProbabilityReply(Reply):
    id: int = required("the token", 471)
    token: str = required("the text that the token completes; empty if it ends within a character", " was")
    bytes: list[int] = required("the token's own bytes", [32, 119, 97, 115])
    logprob: float | None = field("natural log of its probability in the model's own distribution", -0.5)
    prob: float | None = field(
        "with `post_sampling_probs`: its probability in the distribution that was sampled", 0.6
    )
    top_logprobs: list[dict[str, Any]] | None = field("the most likely tokens, in the same format", [])
    top_probs: list[dict[str, Any]] | None = field("the same with `post_sampling_probs`", None)


class NativeReply(Reply):
    """The response, and the last event of a stream; earlier events have only the first six fields.

    With several prompts or choices, the response is a list of these.
    """

    index: int = required("prompt x n + choice", 0)
    content: str = required("the text; in a stream, the new text", " there was a cat.")
    tokens: list[int] = required("token ids, with `return_tokens` or `stream`", [])
    stop: bool = required("whether the generation has ended", True)
    tokens_predicted: int = required("tokens generated", 64)
    tokens_evaluated: int = required("number of prompt tokens", 5)
    id_slot: int = required("the requested slot, else -1", -1)
    model: str = required("the served name", "stories")
    generation_settings: dict[str, Any] = required(
        "the effective settings", {"temperature": 0.8, "n_predict": 64}
    )
    prompt: str = required(
        "the prompt as the model saw it, with special tokens written out", "<s> Once upon a time"
    )
    has_new_line: bool = required("whether the text has a line break", False)
    truncated: bool = required(
        "whether the context was full, so that the text ended or, with --context-shift, tokens were dropped",
        False,
    )
    stop_type: str = required("eos, word, limit or none", "limit")
    stopping_word: str = required("the stop string that ended the text", "")
    tokens_cached: int = required("number of tokens of the sequence in the cache at its end", 68)
    timings: TimingsReply = required("timings and token counts", {"prompt_n": 5, "predicted_n": 64})
    completion_probabilities: list[ProbabilityReply] | None = field("with `n_probs`", [])
    prompt_progress: dict[str, int] | None = field(
        "with `return_progress`, in events before the first token",
        {"total": 512, "cache": 128, "processed": 256, "time_ms": 40},
    )
    warnings: list[str] | None = field("request fields that had no effect", ["n_indent has no effect"])
