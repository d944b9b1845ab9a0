"""Types that scheduler, engine process and server share. Data only, no behaviour.

All of it travels as msgpack between the server and an engine process (`msgspec.Struct`).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import msgspec

ProgressCallback = Callable[[float, str], None]  # fraction done, 0 to 1, and what is being done
# LoRA adapters in use: (number, scale), by number, none of scale 0; see `engine.config.adapter_scales`.
AdapterScales = tuple[tuple[int, float], ...]


class FinishReason(StrEnum):
    """Why a request ended."""

    STOP = "stop"  # end-of-generation token, or a stop token id
    LENGTH = "length"  # max_tokens, or the context is full
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"  # its deadline passed
    ERROR = "error"


class InferenceParameters(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """How the next tokens of one sequence are chosen. Neutral values switch a step off.

    `engine.sampling.parameters` documents the fields below the blank line.
    """

    max_tokens: int | None = None  # None: until the context is full
    min_tokens: int = 0  # end-of-generation tokens are banned before that many
    ignore_eos: bool = False
    stop_token_ids: tuple[int, ...] = ()
    logprobs: int | None = None  # None: none; 0: of the chosen token; N: also of the N most likely
    post_sampling: bool = False  # logprobs of the distribution that was drawn from, not of the model's
    seed: int | None = None  # None: a random one

    logit_bias: dict[int, float] = {}  # added to logits; -inf bans
    repeat_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repeat_last_n: int = 64  # window of the three penalties; 0 off, -1 the whole session
    mirostat: int = 0  # 1 or 2 replaces every truncation step below
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    top_k: int = 0  # 0: off
    tfs_z: float = 1.0
    typical_p: float = 1.0
    top_p: float = 1.0
    min_p: float = 0.0
    top_a: float = 0.0
    temperature: float = 1.0  # 0: greedy, the first of equal logits
    dynatemp_range: float = 0.0
    dynatemp_exponent: float = 1.0
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = 64  # 0 off, -1 the whole session
    dry_sequence_breakers: tuple[str, ...] = ("\n", ":", '"', "*")
    top_n_sigma: float = -1.0  # 0 and below: off
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    adaptive_target: float = -1.0  # below 0: off
    adaptive_decay: float = 0.9
    min_keep: int = 0
    samplers: tuple[str, ...] = (
        "penalties",
        "dry",
        "top_n_sigma",
        "top_k",
        "tfs_z",
        "typ_p",
        "top_p",
        "min_p",
        "top_a",
        "xtc",
        "temperature",
    )


class Constraint(msgspec.Struct, frozen=True):
    """What the generated text must match as a whole (see `engine.constraint`).

    kind: "json_schema" (text: a schema as JSON) | "json_object" (any object; no text) | "regex" (matches the
    whole text) | "choice" (a JSON list of strings) | "gbnf" | "lark" (in llguidance's dialect).
    """

    kind: str
    text: str = ""


class Reasoning(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A reasoning block at the beginning of the output (see `engine.constraint.reasoning`).

    The constraint applies after the block, not inside. After `budget` tokens inside, `end` is forced.

    start, end: token ids that open and close the block. opened: the prompt ends inside of the block.
    """

    start: tuple[int, ...] = ()
    end: tuple[int, ...]
    budget: int | None = None  # None: no limit; 0: closed as soon as it is open
    opened: bool = False


Thinking = Reasoning  # the public name


class Request(msgspec.Struct, kw_only=True, omit_defaults=True, array_like=True, tag=True):
    """One prompt to complete, checked and tokenized, as it enters the engine."""

    id: str
    prompt: list[int]
    params: InferenceParameters = InferenceParameters()
    n_batch: int = 512  # most prompt tokens computed per step
    cache_prompt: bool = True
    draft_max: int = 0  # most tokens drafted for one step (speculative decoding); 0: none are
    spec_type: str = "ngram-simple"  # what drafts them; "draft-simple": the draft model
    lora: AdapterScales = ()
    cache_salt: str = ""  # prefixes are shared only among requests with the same
    slot: int | None = None  # see `server.worker.requests.slots`; ignored by the engine
    n_keep: int = 0  # first tokens that a context shift keeps, see `engine.config.shift_size`
    n_discard: int = 0  # tokens that it drops then, see there
    deadline_ms: float | None = None  # time.monotonic() * 1000 at which it ends with TIMEOUT
    constraint: Constraint | None = None
    thinking: Reasoning | None = None
    # A resumed stream: tokens that the client already has, and the sampler's state after them.
    generated: list[int] = []
    sampler_state: float | None = None
    client: str = ""  # who shares the engine with others, by `weight` (see `engine.scheduler.fair_share`)
    weight: int = 1
    priority: int = 0  # a lower number comes earlier
    boundaries: list[int] = []  # lengths of the prompt from which other requests are likely to go on


class Timings(msgspec.Struct, kw_only=True, omit_defaults=False):
    """What one request took, in milliseconds and tokens, and its `n_batch` in effect."""

    queue_ms: float = 0.0
    prompt_n: int = 0  # prompt tokens computed
    cached_n: int = 0  # prompt tokens taken from the prefix cache
    prompt_ms: float = 0.0
    predicted_n: int = 0
    predicted_ms: float = 0.0
    draft_n: int = 0  # drafted tokens, of speculative decoding
    draft_accepted: int = 0  # of these, those that the sampler chose too
    n_batch: int = 0


class Token(msgspec.Struct, array_like=True, omit_defaults=True):
    """One generated token. Log-probabilities are natural logs of the unmodified softmax."""

    id: int
    logprob: float | None = None
    top: list[tuple[int, float]] | None = None  # most likely first
    sampler_state: float | None = None  # mirostat's or adaptive-p's after this token, for resuming


class StepOutput(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The output of one step for one request. Without tokens and finish it reports prefill progress.

    The end-of-generation or stop token that ends a request with STOP is among the tokens; the receiver omits
    its text.
    """

    id: str
    tokens: list[Token] = []
    processed: int | None = None  # prompt tokens in the cache so far (cached ones included)
    finish: FinishReason | None = None
    error: str | None = None  # with finish == ERROR
    out_of_memory: bool = False  # the error: too little memory; another or a shorter request may fit
    unmet: bool = False  # the error: no text can meet the constraint any more
    timings: Timings | None = None  # with finish, with the first token, with prefill progress
    draft_n: int = 0  # tokens that were drafted for this step
    draft_accepted: int = 0  # of these, those among the tokens


# Fields of EngineStats that tell the room in the cache.
CACHE_ROOM = (
    *("cells_total", "cells_used", "cells_cached"),
    *("window_rows_total", "window_rows_used", "window_rows_cached"),
)


class EngineStats(msgspec.Struct, kw_only=True):
    """A snapshot of the scheduler. Counters only grow."""

    running: int = 0
    waiting: int = 0
    cells_total: int = 0
    cells_used: int = 0  # held by running sessions
    cells_cached: int = 0  # held only by the prefix cache
    window_rows_total: int = 0  # of layers that keep only a window; 0: there are none
    window_rows_used: int = 0  # held by running sessions
    window_rows_cached: int = 0  # held only by checkpoints
    steps: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    predicted_tokens: int = 0
    drafts: int = 0  # steps of a sequence with drafted tokens
    draft_tokens: int = 0
    draft_accepted_tokens: int = 0
    preemptions: int = 0
    evicted_cells: int = 0
    missed_tokens: dict[str, int] = {}  # of prompts, not found in the prefix cache, by `Miss`
    compute_ms: float = 0.0  # inside ggml
    step_ms: float = 0.0  # whole steps
