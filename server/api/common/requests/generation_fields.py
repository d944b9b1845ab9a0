"""The generation fields of requests, and their types."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, PlainValidator, WithJsonSchema

from engine.config import MAX_ADAPTER_SCALE, MAX_ADAPTERS, MAX_PRIORITY
from engine.sampling.parameters import MAX_BREAKER_BYTES, MAX_BREAKERS, MAX_SAMPLERS
from server.api.common.schema import INT_MAX, Schema, field

MAX_STOPS, MAX_STOP_CHARS = 64, 4096
MAX_LOGIT_BIAS, MAX_STOP_TOKENS = 4096, 1024

TokenId = Annotated[int, Field(ge=0, le=INT_MAX)]


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
        if isinstance(number, bool) or not isinstance(number, int | float) or not -100 <= number <= 100:
            raise ValueError(f"the bias of token {key} must be a number from -100 to 100")
        bias[int(key)] = float(number)
    return bias


def _token_ids(value: Any) -> list[int]:
    if not isinstance(value, list) or not all(map(is_token, value)):
        raise ValueError("must be a list of token ids")
    return value


def _stop_ids(value: Any) -> list[int]:
    if len(_token_ids(value)) > MAX_STOP_TOKENS:
        raise ValueError(f"may hold at most {MAX_STOP_TOKENS} ids, not {len(value)}")
    return _token_ids(value)


def _samplers(value: Any) -> list[str]:
    names = list(value) if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("must be a list of names, or a string of their letters")
    if len(names) > MAX_SAMPLERS:
        raise ValueError(f"may hold at most {MAX_SAMPLERS} names, not {len(names)}")
    return names


def _not_zero(limit: int) -> int:
    if limit == 0:
        raise ValueError("must be at least 1, or -1 for no limit")
    return limit


_LIMIT = {"type": "integer", "minimum": 1, "maximum": INT_MAX}
# Most tokens to generate. -1, which clients of llama-server send everywhere, is no limit.
TokenLimit = Annotated[
    int,
    Field(ge=-1, le=INT_MAX),
    AfterValidator(_not_zero),
    WithJsonSchema({"anyOf": [_LIMIT, {"const": -1}]}),
]
IDS_SCHEMA = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": INT_MAX}}
_STRINGS = {"type": "array", "items": {"type": "string"}, "maxItems": MAX_STOPS}
Stops = Annotated[
    list[str], PlainValidator(_stops), WithJsonSchema({"anyOf": [{"type": "string"}, _STRINGS]})
]
_BIAS_SCHEMA = {"type": "object", "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100}}
LogitBias = Annotated[dict[int, float], PlainValidator(_bias), WithJsonSchema(_BIAS_SCHEMA)]
_BIASES = r"^( *[0-9]{1,10} *: *-?(100|[0-9]{1,2}(\.[0-9]{1,9})?) *(,|$))*$"


def _bias_of_text(value: Any) -> dict[int, float]:
    if isinstance(value, str):
        if not re.fullmatch(_BIASES, value):
            raise ValueError("must map token ids to numbers, also as text: 50:-100, 413:5")
        entries = [entry.split(":") for entry in value.split(",") if entry]
        value = {key.strip(): float(number) for key, number in entries}
    return _bias(value)


# As Open WebUI sends it: `50:-100, 413:5`.
BiasOfText = Annotated[
    dict[int, float],
    PlainValidator(_bias_of_text),
    WithJsonSchema({"anyOf": [_BIAS_SCHEMA, {"type": "string", "pattern": _BIASES}]}),
]
TokenIds = Annotated[list[int], PlainValidator(_token_ids), WithJsonSchema(IDS_SCHEMA)]
_StopIds = Annotated[
    list[int], PlainValidator(_stop_ids), WithJsonSchema({**IDS_SCHEMA, "maxItems": MAX_STOP_TOKENS})
]

_Samplers = Annotated[
    list[str],
    PlainValidator(_samplers),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
_Breaker = Annotated[str, Field(min_length=1, max_length=MAX_BREAKER_BYTES)]


class StreamOptions(Schema):
    include_usage: bool | None = field("end the stream with a chunk that has `usage` and no choices", True)
    include_obfuscation: bool | None = field("no effect: streams are not padded", False)


def _number(default: float, low: float, high: float, text: str, example: float) -> Any:
    text = f"{text} (default {default:g}, unless the model file or --default says otherwise; see /props)"
    return field(text, example, ge=low, le=high)


class LoraScale(Schema):
    id: int = Field(ge=0, le=INT_MAX, description="number of the adapter, see /lora-adapters", examples=[0])
    scale: float = Field(
        ge=-MAX_ADAPTER_SCALE,
        le=MAX_ADAPTER_SCALE,
        description="scale of the adapter; 0: not used",
        examples=[0.5],
    )


class SequenceFields(Schema):
    """How to generate one sequence. Null is the same as absent."""

    random_seed: ClassVar[int | None] = None  # the seed that asks for another one each time
    # Under which names an API has a field, and in which object of the body, such as `options.`.
    names: ClassVar[Mapping[str, Sequence[str]]] = {
        "batch_size": ("batch_size", "n_batch"),
        "n_keep": ("n_keep",),
    }
    place: ClassVar[str] = ""

    stop: Stops | None = field("stop before the first of these strings", ["The end"])
    stop_token_ids: _StopIds | None = field("stop at any of these tokens", [2])
    seed: int | None = field(
        "random seed; choice j uses seed + j; negative values are taken modulo 2^64",
        42,
        ge=-(2**63),
        le=2**64 - 1,
    )
    logit_bias: LogitBias | None = field("token id → number added to its logit", {"263": -2.5})

    temperature: float | None = _number(0.8, 0, 100, "0: greedy decoding", 0.7)
    top_p: float | None = _number(
        0.95, 0, 1, "keep the most likely tokens whose probabilities sum to p", 0.95
    )
    top_k: int | None = _number(40, -1, INT_MAX, "keep the k most likely tokens; 0 or -1: off", 40)
    min_p: float | None = _number(
        0.05, 0, 1, "minimum probability of a token relative to the most likely one", 0.05
    )
    typical_p: float | None = _number(1, 0, 1, "locally typical sampling", 0.9)
    top_a: float | None = _number(0, 0, 1, "minimum probability of a token: a x (largest probability)²", 0.1)
    tfs_z: float | None = _number(1, 0, 1, "tail-free sampling", 0.95)
    mirostat: int | None = _number(
        0, 0, 2, "version of mirostat, which replaces the truncation steps: 1 or 2", 2
    )
    mirostat_tau: float | None = _number(5, 0, 100, "target surprise in bits", 5)
    mirostat_eta: float | None = _number(0.1, 0, 10, "learning rate of mirostat", 0.1)
    repeat_penalty: float | None = _number(1, 0.001, 1000, "divide the logits of recent tokens by this", 1.1)
    repeat_last_n: int | None = _number(
        64, -1, INT_MAX, "number of recent tokens for the penalties; -1: all", 64
    )
    frequency_penalty: float | None = _number(
        0, -100, 100, "subtract this from the logits of recent tokens, per occurrence", 0.5
    )
    presence_penalty: float | None = _number(
        0, -100, 100, "subtract this once from the logits of recent tokens", 0.5
    )
    dry_multiplier: float | None = _number(
        0, -100, 100, "DRY: subtract this from the logits of tokens that lengthen a repetition", 0.8
    )
    dry_base: float | None = _number(1.75, 1, 1e6, "DRY: factor for each further token of a repetition", 1.75)
    dry_allowed_length: int | None = _number(
        2, 0, INT_MAX, "DRY: longest repetition, in tokens, without a penalty", 2
    )
    dry_penalty_last_n: int | None = _number(
        64, -1, INT_MAX, "DRY: number of recent tokens to look at; -1: all", 64
    )
    dry_sequence_breakers: list[_Breaker] | None = field(
        'DRY: texts that end a repetition (default: a line break, ":", a double quote and "*")',
        ["\n", ":"],
        max_length=MAX_BREAKERS,
    )
    top_n_sigma: float | None = _number(
        -1, -1, 1000, "keep logits within n standard deviations of the largest; 0 and below: off", 1.5
    )
    xtc_probability: float | None = _number(
        0, 0, 1, "XTC: probability that the most likely tokens are excluded", 0.5
    )
    xtc_threshold: float | None = _number(
        0.1, 0, 1, "XTC: probability above which only the least likely token remains; above 0.5: off", 0.1
    )
    dynatemp_range: float | None = _number(
        0, 0, 100, "vary the temperature by up to this, by the entropy of the candidates", 0.5
    )
    dynatemp_exponent: float | None = _number(1, 0, 100, "how the entropy maps to the temperature", 1)
    adaptive_target: float | None = _number(
        -1, -1, 1, "adaptive-p, if `samplers` has it: prefer tokens near this probability; below 0: off", 0.5
    )
    adaptive_decay: float | None = _number(
        0.9, 0, 0.99, "adaptive-p: decay of its running average; higher: slower", 0.9
    )
    min_keep: int | None = _number(
        0, 0, INT_MAX, "minimum number of candidates that typical_p, top_p, min_p and XTC leave", 0
    )
    samplers: _Samplers | None = field(
        "the sampling steps to run, in order, by llama.cpp's names or as a string of its letters (default: "
        "penalties, dry, top_n_sigma, top_k, tfs_z, typ_p, top_p, min_p, top_a, xtc, temperature)",
        ["penalties", "top_k", "top_p", "temperature"],
    )
    min_tokens: int | None = _number(0, 0, INT_MAX, "minimum number of tokens to generate", 16)
    ignore_eos: bool | None = field("never stop at an end-of-generation token", False)

    batch_size: int | None = field(
        "maximum number of prompt tokens computed per step, up to the server's limit; `timings.n_batch` has "
        "the effective value",
        256,
        ge=1,
        le=2**63 - 1,
    )
    n_batch: int | None = field("another name of `batch_size`", 256, ge=1, le=2**63 - 1)
    n_keep: int | None = field(
        "with --context-shift: number of tokens at the beginning of the prompt that stay when the context is"
        " full, in addition to a BOS token; -1: all (default: 0)",
        0,
        ge=-1,
        le=INT_MAX,
    )
    cache_prompt: bool | None = field("false: do not use the prefix cache", True)
    cache_salt: str | None = field(
        "as in vLLM: share prefixes only with requests that have the same salt (with --cache-isolation key, "
        "also the same key)",
        "our-team",
        min_length=1,
        max_length=256,
    )
    speculative_type: Literal["none", "ngram-simple", "draft-simple"] | None = field(
        "speculative decoding, which changes only the speed; ngram-simple: draft the tokens that followed an"
        " earlier occurrence of the last ones; draft-simple: draft with --draft-model (default: --spec-type)",
        "ngram-simple",
        alias="speculative.type",
    )
    speculative_n_max: int | None = field(
        "maximum number of tokens drafted per step (default: --spec-draft-n-max)",
        8,
        alias="speculative.n_max",
        ge=0,
        le=INT_MAX,
    )
    timeout_ms: int | None = field(
        "time limit for queueing, prefill and decode together; when it expires, the text so far is returned,"
        ' with finish_reason "length" and a warning',
        30_000,
        ge=1,
        le=INT_MAX,
    )
    priority: int | None = field(
        "as in vLLM: requests with a lower number run first, and preempt running ones with a higher number "
        "(default: that of the API key, else 0); a key allows its own number and higher ones",
        0,
        ge=-MAX_PRIORITY,
        le=MAX_PRIORITY,
    )
    return_tokens: bool | None = field("add each choice's token ids as `tokens`", False)
    lora: list[LoraScale] | None = field(
        "the LoRA adapters to use (see /lora-adapters); those not listed are not used; absent: all, with the"
        " server's scales",
        [{"id": 0, "scale": 0.5}],
        max_length=MAX_ADAPTERS,
    )
    id_slot: int | None = field("the slot to run in (see /slots); -1 or absent: any", 0, ge=-1, le=INT_MAX)
    timings_per_token: bool | None = field("with `stream`: add `timings` to every chunk", False)
    return_progress: bool | None = field(
        "with `stream`: report prefill progress before the first token, as `prompt_progress`", False
    )


class SamplingFields(SequenceFields):
    """Fields of the generating routes; in Ollama's API, most of them are in `options`."""

    model: str | None = field("optional if only one model is served", "stories", max_length=512)
    stream: bool | None = field("stream the response as server-sent events", True)


class LogprobFields(Schema):
    """The fields with which chat requests ask for log-probabilities."""

    logprobs: bool | None = field("log-probabilities: natural logs of the unmodified softmax", True)
    top_logprobs: int | None = field("also return the N most likely tokens; needs `logprobs`", 5, ge=0, le=20)


class GenerationFields(SamplingFields):
    """Fields of the routes whose responses have choices."""

    stream_options: StreamOptions | None = field("only with `stream`", {"include_usage": True})
    n: int | None = field("completions per prompt (default: 1)", 1, ge=1, le=INT_MAX)
    n_probs: int | None = field(
        "log-probabilities as in llama-server, including the N most likely tokens", 3, ge=0, le=20
    )
    prompt_logprobs: int | None = field(
        "as in vLLM: log-probabilities of the prompt's tokens, including the N most likely; not with "
        "`stream`",
        3,
        ge=0,
        le=20,
    )
    verbose: bool | None = field("add `__verbose`: the first choice in the format of /completion", False)
