"""Parameters of a model and of a session: the names of the Rust `llm` crate where it had one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from engine.errors import ConfigError

KV_TYPES = ("f16", "f32", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")


@dataclass(frozen=True, kw_only=True)
class ModelParameters:
    """How a model is loaded.

    context_size: longest session in tokens; None: what the model was trained for.
    kv_cells: size of the pool that all sessions share; None: parallel x context size, bounded by
        free memory, at least one whole session.
    max_batch_tokens: rows computed together at most (the physical batch).
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
    repack: bool = True  # False: weights stay in the layout of the file
    mlock: bool = False
    flash_attn: Literal["auto", "on", "off"] = "auto"
    rpc: tuple[str, ...] = ()


MAX_CELLS = 1 << 30  # they are numbered in 32 bits
_RANGES = {
    "context_size": (2, MAX_CELLS),
    "kv_cells": (2, MAX_CELLS),
    "max_batch_tokens": (1, 1 << 20),
    "parallel": (1, 1 << 16),
}


def check(params: ModelParameters) -> None:
    """ConfigError for a value that no model could be loaded with."""
    for name, (least, most) in _RANGES.items():
        value = getattr(params, name)
        if value is not None and not least <= value <= most:
            raise ConfigError(f"{name} is {value}; it must be {least} to {most}")
    if params.flash_attn not in ("auto", "on", "off"):
        raise ConfigError(f"flash_attn is {params.flash_attn!r}; it must be auto, on or off")


@dataclass(frozen=True, kw_only=True)
class InferenceSessionConfig:
    """One session. `n_batch`: prompt tokens fed per computation; clamped to the model's limit."""

    n_batch: int = 512
    n_threads: int | None = None  # None: the model's
    cache_prompt: bool = True


@dataclass(frozen=True, kw_only=True)
class SchedulerConfig:
    """Limits of a scheduler.

    parallel: sessions decoded together. n_ctx: longest session. max_batch_tokens: rows a step.
    """

    parallel: int = 8
    n_ctx: int = 2048
    max_batch_tokens: int = 512
    eog_ids: frozenset[int] = field(default_factory=frozenset)
