"""What every request body has in common: strict types, and the fields of generation."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema

INT_MAX = 2**31 - 1
MAX_STOPS, MAX_STOP_CHARS = 64, 4096
MAX_LOGIT_BIAS, MAX_STOP_TOKENS = 4096, 1024

TokenId = Annotated[int, Field(ge=0, le=INT_MAX)]


class Schema(BaseModel):
    """Types are not coerced ("5" is no number). Unknown fields are kept, to be named in `warnings`."""

    model_config = ConfigDict(
        strict=True, extra="allow", allow_inf_nan=False, protected_namespaces=(), hide_input_in_errors=True
    )


class Reply(BaseModel):
    """A response, for the API description; the bytes are written by hand."""

    model_config = ConfigDict(protected_namespaces=())


def is_token(value: object) -> bool:
    return type(value) is int and 0 <= value <= INT_MAX


def _stops(value: Any) -> list[str]:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise ValueError("must be a string or a list of strings")
    if len(stops) > MAX_STOPS:
        raise ValueError(f"may hold at most {MAX_STOPS} strings, not {len(stops)}")
    if sum(map(len, stops)) > MAX_STOP_CHARS:
        raise ValueError(f"may hold at most {MAX_STOP_CHARS} characters in all")
    return stops


def _bias(value: Any) -> dict[int, float]:
    if not isinstance(value, dict):
        raise ValueError("must map token ids to numbers")
    if len(value) > MAX_LOGIT_BIAS:
        raise ValueError(f"may hold at most {MAX_LOGIT_BIAS} entries, not {len(value)}")
    bias: dict[int, float] = {}
    for key, number in value.items():
        # isdigit() alone takes other scripts' digits, too.
        if not (isinstance(key, str) and key.isascii() and key.isdigit() and len(key) <= 10):
            raise ValueError(f"{str(key)[:32]!r} is not a token id")
        if type(number) not in (int, float) or not -100 <= number <= 100:
            raise ValueError(f"the bias of token {key} must be a number from -100 to 100")
        bias[int(key)] = float(number)
    return bias


def _token_ids(value: Any) -> list[int]:
    if not isinstance(value, list) or not all(map(is_token, value)):
        raise ValueError("must be a list of token ids")
    if len(value) > MAX_STOP_TOKENS:
        raise ValueError(f"may hold at most {MAX_STOP_TOKENS} ids, not {len(value)}")
    return value


_STRINGS = {"type": "array", "items": {"type": "string"}, "maxItems": MAX_STOPS}
Stops = Annotated[
    list[str], PlainValidator(_stops), WithJsonSchema({"anyOf": [{"type": "string"}, _STRINGS]})
]
LogitBias = Annotated[
    dict[int, float],
    PlainValidator(_bias),
    WithJsonSchema(
        {"type": "object", "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100}}
    ),
]
TokenIds = Annotated[
    list[int], PlainValidator(_token_ids), WithJsonSchema({"type": "array", "items": {"type": "integer"}})
]


class StreamOptions(Schema):
    include_usage: bool | None = Field(None, description="end with a chunk that has `usage` and no choices")
    include_obfuscation: bool | None = Field(None, description="no effect: streams are not padded")


def _number(default: float, low: float, high: float, text: str) -> Any:
    return Field(None, ge=low, le=high, description=f"{text} (default {default:g})")


class GenerationFields(Schema):
    """Fields of every generating route. Null is the same as absent."""

    model: str | None = Field(None, max_length=512, description="may be left out if one model is served")
    stream: bool | None = Field(None, description="answer as server-sent events")
    stream_options: StreamOptions | None = None
    n: int | None = Field(None, ge=1, le=INT_MAX, description="completions per prompt (default 1)")
    stop: Stops | None = Field(None, description="end before the first of these strings")
    stop_token_ids: TokenIds | None = Field(None, description="end at any of these tokens")
    seed: int | None = Field(
        None,
        ge=-(2**63),
        le=2**64 - 1,
        description="same seed, same text; choice j uses seed + j; negative ones count modulo 2^64",
    )
    logit_bias: LogitBias | None = Field(None, description="token id → number added to its logit")

    temperature: float | None = _number(1, 0, 100, "0: always the most likely token")
    top_p: float | None = _number(1, 0, 1, "keep the most likely tokens until they sum to p")
    top_k: int | None = _number(0, -1, INT_MAX, "keep the k most likely tokens; 0 or -1: off")
    min_p: float | None = _number(
        0, 0, 1, "keep tokens with at least this share of the best one's probability"
    )
    typical_p: float | None = _number(1, 0, 1, "locally typical sampling")
    top_a: float | None = _number(0, 0, 1, "keep tokens above a x (greatest probability)²")
    tfs_z: float | None = _number(1, 0, 1, "tail-free sampling")
    mirostat: int | None = _number(0, 0, 2, "1 or 2: that version replaces the truncation steps")
    mirostat_tau: float | None = _number(5, 0, 100, "target surprise in bits")
    mirostat_eta: float | None = _number(0.1, 0, 10, "learning rate of mirostat")
    repeat_penalty: float | None = _number(1, 0.001, 1000, "divides logits of tokens seen before")
    repeat_last_n: int | None = _number(64, -1, INT_MAX, "window of the penalties; -1: everything")
    frequency_penalty: float | None = _number(0, -100, 100, "subtracted per earlier occurrence")
    presence_penalty: float | None = _number(0, -100, 100, "subtracted once if seen before")
    min_tokens: int | None = _number(0, 0, INT_MAX, "no end of text before that many tokens")
    ignore_eos: bool | None = Field(None, description="never end by the model's own choice")

    batch_size: int | None = Field(
        None,
        ge=1,
        le=2**63 - 1,
        description="prompt tokens of this session fed per step, up to the server's limit; "
        "`timings.n_batch` tells the value in force",
    )
    n_batch: int | None = Field(None, ge=1, le=2**63 - 1, description="another name of `batch_size`")
    cache_prompt: bool | None = Field(None, description="false: neither use nor feed the prefix cache")
    timeout_ms: int | None = Field(
        None,
        ge=1,
        le=INT_MAX,
        description="time for queue, prompt and generation together; then the text so far is the answer, "
        'with finish_reason "length" and a warning',
    )
    return_tokens: bool | None = Field(None, description="add each choice's token ids as `tokens`")


class TimingsReply(Reply):
    """Milliseconds and tokens, summed over the choices; values in force, not those asked for."""

    queue_ms: float
    prompt_n: int = Field(description="prompt tokens computed")
    cached_n: int = Field(description="prompt tokens found in the prefix cache")
    prompt_ms: float
    predicted_n: int
    predicted_ms: float
    n_batch: int


class PromptTokensDetails(Reply):
    cached_tokens: int


class CompletionTokensDetails(Reply):
    reasoning_tokens: int


class UsageReply(Reply):
    prompt_tokens: int = Field(description="each prompt counted once, however many choices")
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class ErrorBody(Reply):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(Reply):
    """Every failure, on every route."""

    error: ErrorBody


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For the API description of a route."""
    return {status: {"model": ErrorReply} for status in statuses}
