"""Parameters of models, sessions and schedulers, with the names of the Rust `llm` crate where it has one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from engine.errors import ConfigError

KV_TYPES = ("f16", "f32", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")


@dataclass(frozen=True, kw_only=True)
class ModelParameters:
    """How a model is loaded.

    context_size: tokens of the longest session; None: what the model was trained for.
    kv_cells: size of the KV cache that all sessions share, in tokens; None: parallel x context size, limited
        by free memory, at least one whole session.
    max_batch_tokens: most tokens computed together (the physical batch).
    parallel: sequences decoded together.
    repack: whether weights may be repacked for faster products; otherwise they keep the file's layout.
    """

    use_gpu: bool | Literal["auto"] = "auto"
    gpu_layers: int | Literal["all", "auto"] = "all"
    devices: tuple[str, ...] = ()
    tensor_split: tuple[float, ...] = ()
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


MAX_CELLS = 1 << 30  # cell numbers have 32 bits
_RANGES = {
    "context_size": (2, MAX_CELLS),
    "kv_cells": (2, MAX_CELLS),
    "max_batch_tokens": (1, 1 << 20),
    "parallel": (1, 1 << 16),
}


def check(params: ModelParameters) -> None:
    """ConfigError for a value that is out of range for every model."""
    for name, (least, most) in _RANGES.items():
        value = getattr(params, name)
        if value is not None and not least <= value <= most:
            raise ConfigError(f"{name} is {value}; it must be {least} to {most}")
    if params.flash_attn not in ("auto", "on", "off"):
        raise ConfigError(f"flash_attn is {params.flash_attn!r}; it must be auto, on or off")


@dataclass(frozen=True, kw_only=True)
class InferenceSessionConfig:
    """One session. n_batch: most tokens computed together; clamped to the model's `max_batch_tokens`."""

    n_batch: int = 512
    n_threads: int | None = None  # None: the model's
    cache_prompt: bool = True


@dataclass(frozen=True, kw_only=True)
class SchedulerConfig:
    """Limits of a scheduler.

    parallel: sequences decoded together. n_ctx: tokens of the longest one. max_batch_tokens: most tokens of a
    step. eog_ids: tokens that end a generation.
    """

    parallel: int = 8
    n_ctx: int = 2048
    max_batch_tokens: int = 512
    eog_ids: frozenset[int] = field(default_factory=frozenset)
