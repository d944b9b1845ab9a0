"""Parameters of models, sessions and schedulers, with the names of the Rust `llm` crate where it has one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from engine.errors import ConfigError
from engine.types import AdapterScales

KV_TYPES = ("f16", "f32", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
MAX_ADAPTERS = 64
NGRAM, DRAFT_MODEL = "ngram-simple", "draft-simple"  # llama-server's names of what drafts
MAX_DRAFT = 32  # tokens that a step drafts for all its sequences: each needs a row of logits
MAX_ADAPTER_SCALE = 1000.0
MAX_PRIORITY = 1000  # of a request, and as a negative number the least
MAX_WEIGHT = 1000


@dataclass(frozen=True)
class LoraAdapter:
    """A LoRA adapter to load with a model. scale: for sessions and requests that name no adapters."""

    path: str
    scale: float = 1.0


@dataclass(frozen=True, kw_only=True)
class ModelParameters:
    """How a model is loaded.

    context_size: tokens of the longest session; None: what the model was trained for.
    kv_cells: size of the KV cache that all sessions share, in tokens; None: parallel x context size, limited
        by free memory, at least one whole session.
    max_batch_tokens: most tokens computed together (the physical batch).
    parallel: sequences decoded together.
    checkpoints: states of recurrent layers, or windows of layers with one, that are kept for later requests;
        None: 64 states, fewer if they would take more than a tenth of free memory; windows of an eighth of
        the cache.
    checkpoint_interval: tokens of a long prompt after which a checkpoint is made.
    cpu_experts: of how many layers the experts stay on the CPU, from the first; None: of as few as possible
        where `gpu_layers` is left to the plan, else of none.
    tensor_overrides: (regular expression, device) for tensors that are not on the device of their layer.
    lora_adapters: GGUF files of adapters; requests name them by their place in this list.
    draft_model: GGUF file of a smaller model with the same vocabulary, which drafts tokens for requests that
        want it (`Request.spec_type`). draft_gpu_layers: its layers on the GPU, as `gpu_layers`.
    memory_limit: bytes that the model may take on all devices together, mapped weights included; None: what
        is free. A cache of automatic size stays below it, and what cannot is refused before it is loaded.
    repack: whether weights may be repacked for faster products; otherwise they keep the file's layout.
    context_shift: whether a request or session goes on when its context is full, see `shift_size`; otherwise
        it ends.
    """

    use_gpu: bool | Literal["auto"] = "auto"
    gpu_layers: int | Literal["all", "auto"] = "all"
    devices: tuple[str, ...] = ()
    tensor_split: tuple[float, ...] = ()
    cpu_experts: int | Literal["all"] | None = None
    tensor_overrides: tuple[tuple[str, str], ...] = ()
    context_size: int | None = None
    kv_cells: int | None = None
    max_batch_tokens: int = 512
    parallel: int = 8
    n_threads: int | None = None  # None: the number of physical cores we may use
    kv_type: str = "f16"
    use_mmap: bool = True
    repack: bool = True
    mlock: bool = False
    flash_attn: Literal["auto", "on", "off"] = "auto"
    rpc: tuple[str, ...] = ()
    lora_adapters: tuple[LoraAdapter, ...] = ()
    checkpoints: int | None = None
    checkpoint_interval: int = 512
    context_shift: bool = False
    draft_model: str | None = None
    draft_gpu_layers: int | Literal["all", "auto"] = "all"
    memory_limit: int | None = None


MAX_CELLS = 1 << 30  # cell numbers have 32 bits
_RANGES = {
    "context_size": (2, MAX_CELLS),
    "kv_cells": (2, MAX_CELLS),
    "max_batch_tokens": (1, 1 << 20),
    "parallel": (1, 1 << 16),
    "checkpoints": (1, 1 << 16),
    "checkpoint_interval": (1, 1 << 30),
    "memory_limit": (0, 1 << 62),
}


def check(params: ModelParameters) -> None:
    """Raises ConfigError for a value that is out of range for every model."""
    for name, (least, most) in _RANGES.items():
        value = getattr(params, name)
        if value is not None and not least <= value <= most:
            raise ConfigError(f"{name} is {value}; it must be {least} to {most}")
    if params.flash_attn not in ("auto", "on", "off"):
        raise ConfigError(f"flash_attn is {params.flash_attn!r}; it must be auto, on or off")
    if len(params.lora_adapters) > MAX_ADAPTERS:
        raise ConfigError(f"{len(params.lora_adapters)} LoRA adapters; at most {MAX_ADAPTERS} can be loaded")
    default_adapters(params)


def adapter_scales(pairs: Iterable[tuple[int, float]], n_adapters: int) -> AdapterScales:
    """The adapters of a request in a canonical form that the engine can compare.

    Raises ConfigError for an unknown number, a repeated one, or a scale out of range.
    """
    scales: dict[int, float] = {}
    for number, scale in pairs:
        if not 0 <= number < n_adapters:
            loaded = f"the model has {n_adapters}, numbered from 0" if n_adapters else "the model has none"
            raise ConfigError(f"there is no LoRA adapter {number}; {loaded}")
        if number in scales:
            raise ConfigError(f"LoRA adapter {number} is named twice")
        if not -MAX_ADAPTER_SCALE <= scale <= MAX_ADAPTER_SCALE:
            raise ConfigError(
                f"the scale of LoRA adapter {number} is {scale:g}; it must lie between "
                f"{-MAX_ADAPTER_SCALE:g} and {MAX_ADAPTER_SCALE:g}"
            )
        scales[number] = float(scale)
    return tuple(sorted((number, scale) for number, scale in scales.items() if scale))


def default_adapters(params: ModelParameters) -> AdapterScales:
    """The adapters of sessions and requests that name none."""
    adapters = params.lora_adapters
    return adapter_scales(((i, adapter.scale) for i, adapter in enumerate(adapters)), len(adapters))


@dataclass(frozen=True, kw_only=True)
class InferenceSessionConfig:
    """One session.

    n_batch: most tokens computed together; clamped to the model's `max_batch_tokens`.
    lora: (number, scale) of the LoRA adapters to use, see `ModelParameters.lora_adapters`; None: all, with
        the scales that they were loaded with.
    n_keep, n_discard: of a context shift, see `shift_size`; n_keep -1: what the session has before `infer`.
    """

    n_batch: int = 512
    n_threads: int | None = None  # None: the model's
    cache_prompt: bool = True
    lora: AdapterScales | None = None
    n_keep: int = 0
    n_discard: int = 0


@dataclass(frozen=True, kw_only=True)
class SchedulerConfig:
    """Limits of a scheduler.

    parallel: sequences decoded together. n_ctx: tokens of the longest one. max_batch_tokens: most tokens of a
    step. eog_ids: tokens that end a generation. n_adapters: LoRA adapters that requests can name.
    context_shift: see `ModelParameters`.
    """

    parallel: int = 8
    n_ctx: int = 2048
    max_batch_tokens: int = 512
    eog_ids: frozenset[int] = field(default_factory=frozenset)
    n_adapters: int = 0
    context_shift: bool = False


def shift_size(n_keep: int, n_ctx: int, n_discard: int = 0) -> tuple[int, int]:
    """How many tokens a context shift keeps at the beginning, and how many it drops after them.

    As in llama-server: `n_discard`, or with 0 half of what the full context holds behind the first `n_keep`,
    of which four always give way.
    """
    n_keep = max(0, min(n_keep, n_ctx - 4))
    behind = n_ctx - 1 - n_keep
    return n_keep, max(1, min(n_discard or behind // 2, behind))


def n_shifted(n_tokens: int, n_keep: int, n_ctx: int, n_discard: int = 0) -> int:
    """How many of `n_tokens` tokens to drop, in whole context shifts, so that one more can be computed."""
    _, n_drop = shift_size(n_keep, n_ctx, n_discard)
    return max(0, -(-(n_tokens - n_ctx + 1) // n_drop)) * n_drop
