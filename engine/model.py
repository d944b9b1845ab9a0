"""A loaded model: weights on their devices, the KV cache, the runner, and what sessions share."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from engine import arch as architectures
from engine import kvcache
from engine.arch.slots import Binder, Slot
from engine.config import InferenceSessionConfig, ModelParameters, SchedulerConfig
from engine.errors import ConfigError, SessionClosedError
from engine.ggml.backend import Backend, devices
from engine.ggml.sched import Sched
from engine.gguf import GGUFFile, validate_model
from engine.graph import NODES_PER_LAYER
from engine.inference import InferenceSession
from engine.pool import CellPool
from engine.prefix import PrefixIndex
from engine.runner import Runner
from engine.scheduler import Scheduler
from engine.tokenizer import Tokenizer, load_tokenizer
from engine.weights import Progress, Weights, wanted


def load(path: str | os.PathLike[str], params: ModelParameters | None = None, progress: Progress | None = None) -> Model:
    """Load a GGUF file. `progress(fraction, text)` is called while weights are brought in.

    Raises ModelError for a bad file, UnsupportedModelError for one that we cannot run, ConfigError
    for parameters out of range, OutOfMemoryError and DeviceError as their names say.
    """
    return Model(Path(path), params or ModelParameters(), progress)


def usable_cpus() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Model:
    """A model ready to run. Only one thread at a time may use it: the engine thread.

    `tokenizer`, `runner`, `pool`, `prefix`, `n_ctx` and `max_batch_tokens` are what sessions are made of.
    """

    def __init__(self, path: Path, params: ModelParameters, progress: Progress | None) -> None:
        self.params, self.closed = params, False
        self._closing: list[Any] = []
        gguf = GGUFFile.open(path)
        self._closing.append(gguf)
        try:
            self._load(gguf, params, progress or (lambda fraction, text: None))
        except BaseException:
            self.close()
            raise

    def _load(self, gguf: GGUFFile, params: ModelParameters, progress: Progress) -> None:
        self.gguf = gguf
        arch_type = architectures.get(gguf.arch)
        validate_model(gguf)
        self.hp = hp = arch_type.hparams(gguf)
        arch = arch_type(hp)
        slots = wanted(arch, gguf)
        n_ctx = params.context_size or hp.n_ctx_train
        if n_ctx < 2:
            raise ConfigError(f"context_size is {n_ctx}; a session needs at least 2 tokens")
        self.max_batch_tokens = max(params.max_batch_tokens, params.parallel)
        self.n_threads = params.n_threads or usable_cpus()

        cpu = next(d for d in devices() if d.type == "cpu")
        self.layer_devices = [cpu] * (hp.n_layer + 1)
        self.n_cells = params.kv_cells or params.parallel * n_ctx
        self.n_ctx = min(n_ctx, self.n_cells)

        self.weights = Weights(
            gguf, slots, self._candidates, use_mmap=params.use_mmap, progress=lambda f, text: progress(0.9 * f, text)
        )
        self._closing.append(self.weights)
        arch.bind(Binder(gguf.tensors.__contains__, self.weights.tensors))
        self.cache = kvcache.KVCache(
            hp, self.n_cells, params.kv_type, [d.buffer_types()[-1] for d in self.layer_devices[:-1]]
        )
        self._closing.append(self.cache)
        self.backends = [Backend(cpu, self.n_threads)]
        self._closing.extend(self.backends)
        self.sched = Sched(self.backends, 2 * (NODES_PER_LAYER * hp.n_layer + 64))
        self._closing.append(self.sched)
        self.attention = [self._attention_kind(i) for i in range(hp.n_layer)]
        self.runner = Runner(arch, self.cache, self.sched, self.attention, self.max_batch_tokens)
        self.runner.reserve()
        self.pool = CellPool(self.n_cells)
        self.prefix = PrefixIndex(self.pool)
        self._tokenizer: Tokenizer | None = None
        progress(1.0, "ready")

    def _candidates(self, slot: Slot) -> list[Any]:
        layer = max(slot.layer, 0) if slot.op != "get_rows" else -1
        found: list[Any] = list(self.layer_devices[layer].buffer_types())
        return found

    def _attention_kind(self, layer: int) -> str:
        choice = self.params.flash_attn
        if choice == "auto" and self.layer_devices[layer].type == "cpu":
            return "paged"
        return "explicit" if choice == "off" else "flash"

    # --- use

    @property
    def tokenizer(self) -> Tokenizer:
        if self._tokenizer is None:
            self._tokenizer = load_tokenizer(self.gguf)
        return self._tokenizer

    @property
    def eog_ids(self) -> frozenset[int]:
        return self.tokenizer.eog_ids

    def scheduler(self, parallel: int | None = None) -> Scheduler:
        """A scheduler that runs requests on this model, sharing its cells and its prefix cache."""
        self._check_open()
        config = SchedulerConfig(
            parallel=parallel or self.params.parallel,
            n_ctx=self.n_ctx,
            max_batch_tokens=self.max_batch_tokens,
            eog_ids=self.eog_ids,
        )
        return Scheduler(self.runner, self.pool, config, prefix=self.prefix)

    def start_session(self, config: InferenceSessionConfig | None = None) -> InferenceSession:
        """A session of its own batch size, for use in this process without a scheduler."""
        self._check_open()
        return InferenceSession(self, config or InferenceSessionConfig())

    def set_threads(self, n: int | None) -> None:
        """Threads that the CPU computes with from now on; None: as loaded."""
        for backend in self.backends:
            if backend.device.type == "cpu":
                backend.set_threads(n or self.n_threads)

    def set_threads(self, n: int | None) -> None:
        """Threads of the computations from now on; None: the model's own number."""
        self.backends[-1].set_threads(n or self.n_threads)

    def describe(self) -> dict[str, Any]:
        """What was loaded and where it is, as plain data."""
        return {
            "path": str(self.gguf.path),
            "architecture": self.gguf.arch,
            "n_params": sum(info.n_elements for info in self.gguf.tensors.values()),
            "size_bytes": sum(info.nbytes for info in self.gguf.tensors.values()),
            "n_layer": self.hp.n_layer,
            "n_embd": self.hp.n_embd,
            "n_vocab": self.hp.n_vocab,
            "n_ctx": self.n_ctx,
            "n_ctx_train": self.hp.n_ctx_train,
            "kv_cells": self.n_cells,
            "kv_type": self.params.kv_type,
            "kv_bytes": self.cache.nbytes,
            "weight_bytes": self.weights.nbytes,
            "compute_bytes": {b.device.name: self.sched.buffer_size(b) for b in self.backends},
            "n_threads": self.n_threads,
            "parallel": self.params.parallel,
            "max_batch_tokens": self.max_batch_tokens,
            "placement": [d.name for d in self.layer_devices],
            "attention": self.attention,
        }

    def _check_open(self) -> None:
        if self.closed:
            raise SessionClosedError("the model was closed")

    def close(self) -> None:
        """Free everything: graphs, cache, weights, backends, file. Sessions stop working."""
        self.closed = True
        self.runner = None  # type: ignore[assignment]
        while self._closing:
            self._closing.pop().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
