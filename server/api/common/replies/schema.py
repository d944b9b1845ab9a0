"""Parts of responses that several APIs describe in the same way."""

from __future__ import annotations

from typing import Any

from server.api.common.schema import Reply, field, required


class TimingsReply(Reply):
    """Milliseconds and tokens, summed over the choices. The values are the effective ones, not those
    requested.
    """

    queue_ms: float = required("time in the queue until the first step", 0.1)
    prompt_n: int = required("prompt tokens that were computed", 12)
    cached_n: int = required("prompt tokens taken from the prefix cache", 100)
    prompt_ms: float = required("time from the first step to the first token", 31.5)
    predicted_n: int = required("tokens generated", 64)
    predicted_ms: float = required("time from the first token to the last", 812.0)
    draft_n: int = required("drafted tokens (speculative decoding)", 40)
    draft_accepted: int = required("drafted tokens that became part of the text", 31)
    n_batch: int = required("the effective batch size", 256)
    cache_n: int = required("llama-server's name of `cached_n`", 100)
    draft_n_accepted: int = required("llama-server's name of `draft_accepted`", 31)
    prompt_per_token_ms: float = required("of `prompt_n`", 2.6)
    prompt_per_second: float = required("of `prompt_n`", 381.0)
    predicted_per_token_ms: float = required("time per token", 12.9)
    predicted_per_second: float = required(
        "generated tokens per second, without the first token of each choice", 77.6
    )


class PromptLogprob(Reply):
    logprob: float = required("natural log of the unmodified softmax", -0.5)
    rank: int = required("rank in the vocabulary; 1 is the most likely", 1)
    decoded_token: str = required("its text", " a")


PROMPT_LOGPROBS = [None, {"471": {"logprob": -0.5, "rank": 1, "decoded_token": " a"}}]


class PromptTokensDetails(Reply):
    cached_tokens: int = required("prompt tokens taken from the prefix cache", 100)


class CompletionTokensDetails(Reply):
    reasoning_tokens: int = required("completion tokens spent on reasoning", 0)


class UsageReply(Reply):
    prompt_tokens: int = required(
        "prompt tokens; each prompt counts once, whatever the number of choices", 112
    )
    completion_tokens: int = required("tokens of all choices", 64)
    total_tokens: int = required("both", 176)
    prompt_tokens_details: PromptTokensDetails = required("parts of `prompt_tokens`", {"cached_tokens": 100})
    completion_tokens_details: CompletionTokensDetails = required(
        "parts of `completion_tokens`", {"reasoning_tokens": 0}
    )


class ErrorBody(Reply):
    message: str = required("what is wrong, and what to do", "prompt: is required")
    type: str = required("the error type, as in the OpenAI API", "invalid_request_error")
    param: str | None = required("the field at fault", "prompt")
    code: str | None = required("for programs", "missing_field")
    n_prompt_tokens: int | None = field("with context_length_exceeded", 5000)
    n_ctx: int | None = field("with context_length_exceeded: the maximum context length", 4096)


class ErrorReply(Reply):
    """Every error, on every route."""

    error: ErrorBody = required(
        "the failure",
        {
            "message": "prompt: is required",
            "type": "invalid_request_error",
            "param": "prompt",
            "code": "missing_field",
        },
    )


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error responses of every route for the API description. 4XX covers the others, in place of
    FastAPI's own 422.
    """
    described: list[int | str] = [*statuses, "4XX"]
    return {status: {"model": ErrorReply} for status in described}
