"""Fields of a request's body: those that all generating routes share, and those beyond its schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from server.api.common.requests.generation_fields import GenerationFields, LogprobFields, SequenceFields
from server.api.common.schema import Schema
from server.errors import unsupported, wrong
from server.generation.options import GenerationOptions
from server.generation.request_context import RequestContext

_SAMPLING = [
    "min_tokens",
    "ignore_eos",
    "seed",
    "logit_bias",
    "repeat_penalty",
    "frequency_penalty",
    "presence_penalty",
    "repeat_last_n",
    "mirostat",
    "mirostat_tau",
    "mirostat_eta",
    "top_k",
    "tfs_z",
    "typical_p",
    "top_p",
    "min_p",
    "top_a",
    "temperature",
]

# Fields of the official APIs that change the answer and are not supported: refused, except at the values
# listed, which ask for nothing.
REFUSED: dict[str, tuple[Any, ...]] = {
    "tools": ([],),  # where there is no chat
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"], []),
    "audio": (),
    "web_search_options": (),
}
_INSTEAD = {"functions": "; send tools", "function_call": "; send tool_choice"}
# Fields of the official APIs that change nothing here; no warning at the values listed.
_IDLE: dict[str, tuple[Any, ...]] = {
    "metadata": ({},),
    "store": (False,),
    "service_tier": ("auto", "default"),
}


def generation_options(
    body: SequenceFields,
    context: RequestContext,
    *,
    id_prefix: str,
    stream: bool | None,
    reports: bool = True,
    **fields: Any,
) -> GenerationOptions:
    """The shared fields; `fields` are those of `GenerationOptions` that the API reads itself.

    reports: whether the API's streams can tell of timings and progress.
    """
    for name in ("timings_per_token", "return_progress"):
        if getattr(body, name) and not reports:
            context.warn(f"{name} has no effect: this API has no events for it")
    if body.stop and "" in body.stop:
        context.warn("stop has no effect where it is an empty string")
    batch_size = body.batch_size
    if body.n_batch is not None:
        used_name(body, ("batch_size", "n_batch"))  # differing values are refused
        batch_size = body.n_batch
    shared = {
        "sampling": sampling_fields(body),
        "stop": [stop for stop in body.stop or () if stop],
        "stop_token_ids": body.stop_token_ids or (),
        "batch_size": batch_size,
        "cache_prompt": body.cache_prompt is not False,
        "timeout_ms": body.timeout_ms,
        "lora": None if body.lora is None else [(adapter.id, adapter.scale) for adapter in body.lora],
        "slot": None if body.id_slot is None or body.id_slot < 0 else body.id_slot,
        "stream": bool(stream),
        "return_tokens": bool(body.return_tokens),
        "timings_per_token": bool(body.timings_per_token),
        "report_progress": bool(body.return_progress and stream),
    }
    return GenerationOptions(id_prefix=id_prefix, **{**shared, **fields})


def choice_options(
    body: GenerationFields, context: RequestContext, *, id_prefix: str, **fields: Any
) -> GenerationOptions:
    """The same for the routes whose responses have choices."""
    stream_options = body.stream_options
    if stream_options is not None:
        if not body.stream:
            context.warn("stream_options has no effect: stream is not true")
        if stream_options.include_obfuscation:
            context.warn("stream_options.include_obfuscation has no effect")
    return generation_options(
        body,
        context,
        id_prefix=id_prefix,
        stream=body.stream,
        n=body.n or 1,
        include_usage=bool(body.stream and stream_options and stream_options.include_usage),
        prompt_logprobs=_prompt_logprobs(body, context),
        **fields,
    )


def sampling_fields(body: SequenceFields) -> dict[str, Any]:
    """Those that the client set."""
    fields = {name: value for name in _SAMPLING if (value := getattr(body, name)) is not None}
    if body.seed == body.random_seed:
        fields.pop("seed", None)
    return fields


def requested_logprobs(body: LogprobFields) -> int | None:
    """How many of the most likely tokens are reported for each position; None: no log-probabilities."""
    if body.top_logprobs is not None and not body.logprobs:
        raise wrong("top_logprobs", "needs logprobs: true")
    return (body.top_logprobs or 0) if body.logprobs else None


def _prompt_logprobs(body: GenerationFields, context: RequestContext) -> int | None:
    if body.stream and body.prompt_logprobs:
        raise wrong("prompt_logprobs", "are in the whole response only, not with stream")
    if body.stream and body.prompt_logprobs == 0:  # vLLM takes it, and shows nothing
        context.warn("prompt_logprobs has no effect with stream")
        return None
    return body.prompt_logprobs


def check_fields(
    body: Schema, context: RequestContext, refused: Mapping[str, tuple[Any, ...]] = REFUSED
) -> None:
    """Warn of unknown fields; refuse those of `refused`, except at the values listed there."""
    for name, value in (body.model_extra or {}).items():
        if value is None or value in _IDLE.get(name, ()):
            continue
        if name in refused:
            if value in refused[name]:
                continue
            raise unsupported(name, f"is not supported by this server{_INSTEAD.get(name, '')}")
        context.warn(f"{name[:64]} has no effect")


def warn_of_unknown(
    extra: Mapping[str, Any] | None,
    where: str,
    context: RequestContext,
    refused: tuple[str, ...] = (),
    silent: tuple[str, ...] = (),
) -> None:
    """Warn of the fields that an object below the body has beyond its schema, or refuse them."""
    for name, value in (extra or {}).items():
        if value in (None, [], "") or name in silent:
            continue
        param = f"{where}.{name[:64]}"
        if name in refused:
            instead = "; send tool_calls" if name == "function_call" else ""
            raise unsupported(param, f"is not supported{instead}")
        context.warn(f"{param} has no effect")


def used_name(body: Schema, names: Sequence[str], place: str = "") -> str | None:
    """By which of its names a request has a field. Raises ApiError (400) if values under several differ."""
    used = [name for name in names if getattr(body, name) is not None]
    for name in used[1:]:
        if getattr(body, name) != getattr(body, used[0]):
            raise wrong(f"{place}{name}", f"differs from {used[0]}, its other name")
    return used[0] if used else None
