"""How to generate: the fields that all generating routes share, independent of any API's wire format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """Made by the parser of an API; the input processor checks it against the model.

    sampling: fields of `engine.InferenceParameters` that the client set.
    max_tokens: None: the request sets none; -1: until the context is full; 0: only the prompt is computed.
    logprobs: how many of the most likely tokens are reported for each position; None: no log-probabilities.
    echo: begin the text, and the log-probabilities, with the prompt.
    prompt_logprobs: the same for the tokens of the prompt.
    n: sequences that the response shows for each prompt; best_of: sequences that are made for it.
    limit_field and n_field: the API's names of `max_tokens` and of what asks for too many sequences.
    """

    id_prefix: str  # of the response's id
    sampling: Mapping[str, Any] = field(default_factory=dict)
    max_tokens: int | None = None
    limit_field: str = "max_tokens"
    logprobs: int | None = None
    post_sampling_logprobs: bool = False
    echo: bool = False
    prompt_logprobs: int | None = None
    stop: Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    n: int = 1
    best_of: int = 0  # 0: `n`
    n_field: str = "n"
    batch_size: int | None = None
    n_keep: int = 0  # of the prompt's first tokens when the context is full; -1: all of them
    n_discard: int = 0  # tokens that give way then; 0: half of those behind
    speculation: str | None = None  # "none" or how drafts are made; None: the server's
    draft_max: int | None = None  # most drafted tokens for one step; None: the server's
    cache_prompt: bool = True
    cache_salt: str = ""  # only requests with the same one share prefixes
    timeout_ms: int | None = None
    lora: Sequence[tuple[int, float]] | None = None  # numbers and scales; None: the server's
    priority: int | None = None  # lower is earlier; None: the client's
    slot: int | None = None  # llama-server's number of a place; None: any
    line_break_after_ms: float | None = None  # of generating: end at the first line break after that
    stream: bool = False
    include_usage: bool = False
    return_tokens: bool = False
    timings_per_token: bool = False
    report_progress: bool = False  # of the prompt, in a stream
