"""A model in memory: weights on their devices, the KV cache, and the runner."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from engine.cache.cell_pool import CellPool
from engine.cache.kv_cache import KVCache
from engine.cache.prefix_cache import PrefixCache
from engine.cache.state_cache import StateCache
from engine.cache.state_slots import StateSlots
from engine.cache.window_rows import WindowRows
from engine.config import ModelParameters, check
from engine.errors import ConfigError, SessionClosedError
from engine.ggml.backend import Backend, Device
from engine.ggml.sched import Sched
from engine.gguf import GGMLType, GGUFFile, TensorInfo, printable
from engine.gguf.fingerprint import fingerprint
from engine.graph.forward_context import n_nodes
from engine.graph.model_runner import ModelRunner
from engine.lora.adapter import Adapter, read_adapter
from engine.lora.weights import AdapterWeights
from engine.model.attention import check_stores_cache, required_attention
from engine.model.file_sampling import file_sampling
from engine.model.loader import Weights, choose_layout
from engine.model.preparation import Preparation, open_files, prepare
from engine.nn.binder import Binder, TensorSpec
from engine.tokenizer import Tokenizer, load_tokenizer
from engine.types import ProgressCallback
from engine.units import format_bytes

log = logging.getLogger("ggserve.engine")


class LoadedModel:
    """A `ModelContext`. Only one thread may use it at a time: the engine thread."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        params: ModelParameters | None = None,
        progress: ProgressCallback | None = None,
    ) -> None:
        """Load a GGUF file. `progress(fraction, text)` is called while weights are loaded."""
        params = params or ModelParameters()
        check(params)
        self.closed = False
        with ExitStack() as resources:
            self.gguf, draft = open_files(path, params, resources)
            preparation = prepare(self.gguf, params, draft)
            self._allocate(preparation, progress or _ignore, resources)
            self._resources = resources.pop_all()

    def _allocate(self, preparation: Preparation, progress: ProgressCallback, resources: ExitStack) -> None:
        log.info("plan:\n%s", preparation.plan.table())
        self.params, self.plan, self.hp = preparation.params, preparation.plan, preparation.arch.hp
        self.max_batch_tokens, self.n_threads = preparation.max_batch_tokens, preparation.n_threads
        self.n_cells = preparation.plan.n_cells
        self.n_ctx = min(preparation.n_ctx, self.n_cells)
        self.n_rows = preparation.plan.n_rows  # of layers with a window
        self.sampling, remarks = file_sampling(self.gguf)
        for remark in remarks:
            log.warning("%s", remark)
        self.layer_devices = preparation.layer_devices
        params, hp, cpu = preparation.params, preparation.arch.hp, preparation.cpu
        self.weights = Weights(
            self.gguf,
            preparation.specs,
            lambda spec: _buffer_types(preparation, spec),
            params,
            n_threads=self.n_threads,
            progress=lambda fraction, text: progress(0.9 * fraction, text),
        )
        resources.callback(self.weights.close)
        self.lora = [self._load_adapter(preparation, adapter, resources) for adapter in preparation.adapters]
        matrices = [loaded.matrices for loaded in self.lora]
        preparation.arch.bind(Binder(self.gguf.tensors.__contains__, self.weights.tensors, matrices))
        devices = self.layer_devices[:-1]
        for device in dict.fromkeys(devices):
            check_stores_cache(device, hp, params.kv_type)
        self.attention: list[str] = [
            required_attention(device, hp, layer, params) for layer, device in enumerate(devices)
        ]
        windows = None
        if preparation.plan.has_windows:
            interval = params.checkpoint_interval
            windows = WindowRows(self.n_rows, hp.cache_window, self.n_cells, interval)
        self.cache = KVCache(
            hp,
            self.n_cells,
            params.kv_type,
            [device.buffer_types()[-1] for device in devices],
            windows=windows,
            zeroed=any(kind in ("flash", "explicit") for kind in self.attention),
        )
        resources.callback(self.cache.close)
        self.states: StateCache | None = None
        slots = None
        if hp.recurrence is not None:
            self.states = StateCache(hp, preparation.n_slots, cpu.buffer_types()[-1])
            resources.callback(self.states.close)
            slots = StateSlots(preparation.n_slots, self.states.copy, params.checkpoint_interval)
        if params.mlock:
            adapted = [buffer for loaded in self.lora for buffer in loaded.buffers]
            lock_memory([*self.weights.buffers, *adapted, *self.cache.buffers])
        used = [device for device in preparation.used_devices if device is not cpu]
        self.backends = self._make_backends([*used, cpu], resources)
        self.sched = Sched(self.backends, 2 * n_nodes(hp, len(matrices)))
        resources.callback(self.sched.close)
        self.runner = ModelRunner(
            preparation.arch,
            self.cache,
            self.sched,
            self.attention,
            ["cpu" if device is cpu else device.backend.lower() for device in devices],
            self.max_batch_tokens,
            self.weights.row_multiple,
            self.states,
        )
        resources.callback(self.runner.close)
        self.runner.reserve(params.parallel if hp.causal else self.max_batch_tokens, len(matrices))
        self.pool = CellPool(self.n_cells, slots, windows)
        self.prefix = PrefixCache(self.pool)
        self.n_draft_vocab, self.draft = preparation.n_draft_vocab, None
        if preparation.draft is not None:
            self.draft = DraftModel(
                preparation.draft, self.backends, lambda fraction, text: progress(0.9 + fraction / 10, text)
            )
            resources.callback(self.draft.close)
        progress(1.0, "ready")

    def _make_backends(self, devices: Iterable[Device], resources: ExitStack) -> list[Backend]:
        """A backend for each device, the CPU's last."""
        backends = []
        for device in devices:
            backends.append(Backend(device, self.n_threads if device.type == "cpu" else 1))
            resources.callback(backends[-1].close)
        return backends

    def _load_adapter(
        self, preparation: Preparation, adapter: Adapter, resources: ExitStack
    ) -> AdapterWeights:
        def buffer_type(spec: TensorSpec) -> Any:
            info = TensorInfo(spec.name, GGMLType.F32, spec.shape, 0, 0)
            return choose_layout(spec, info, _buffer_types(preparation, spec), repack=False).buffer_type

        with GGUFFile.open(Path(adapter.path)) as gguf:
            # Checked again: the file may have changed since.
            adapter = read_adapter(gguf, self.gguf.arch, preparation.specs)
            loaded = AdapterWeights(gguf, adapter, buffer_type)
            resources.callback(loaded.close)
            loaded.fingerprint = fingerprint(gguf)
            log.info("LoRA adapter %s: %d matrices", printable(adapter.path), len(adapter.matrices))
        return loaded

    @property
    def adapters(self) -> list[str]:
        """The fingerprints of the LoRA adapters, by number."""
        return [loaded.fingerprint for loaded in self.lora]

    @property
    def n_vocab(self) -> int:
        """Length of a row of logits; some models have more than their tokenizer has tokens."""
        return self.hp.n_vocab

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return load_tokenizer(self.gguf)

    @property
    def eog_ids(self) -> frozenset[int]:
        """The end-of-generation tokens."""
        return self.tokenizer.eog_ids

    @property
    def fingerprint(self) -> str:
        """Identifies the model of a saved session; see `engine.gguf.fingerprint`."""
        self._check_open()
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        return fingerprint(self.gguf)

    def set_threads(self, n: int | None) -> None:
        """Set the number of CPU threads; None: as many as the model was loaded with."""
        self._check_open()
        for backend in self.backends:
            if backend.device.type == "cpu":
                backend.set_threads(n or self.n_threads)

    def _check_open(self) -> None:
        if self.closed:
            raise SessionClosedError("the model was closed")

    def close(self) -> None:
        """Free everything: graphs, cache, weights, backends, file. Sessions stop working."""
        self.closed = True
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()


class DraftModel(LoadedModel):
    """The draft model of another model. It uses that model's backends, so that they share threads."""

    def __init__(
        self, preparation: Preparation, backends: Iterable[Backend], progress: ProgressCallback
    ) -> None:
        self.closed, self.gguf = False, preparation.gguf
        self._shared = {backend.device.name: backend for backend in backends}
        with ExitStack() as resources:
            self._allocate(preparation, progress, resources)
            self._resources = resources.pop_all()

    def _make_backends(self, devices: Iterable[Device], resources: ExitStack) -> list[Backend]:
        needed = list(devices)
        lacking = [device for device in needed if device.name not in self._shared]
        own = super()._make_backends(lacking, resources)
        by_name = self._shared | {backend.device.name: backend for backend in own}
        return [by_name[device.name] for device in needed]


def _ignore(fraction: float, text: str) -> None:
    """A progress function that does nothing."""


def _buffer_types(preparation: Preparation, spec: TensorSpec) -> list[Any]:
    """The buffer types for a tensor, best first."""
    cpu, device = preparation.cpu, preparation.device_of(spec)
    own: list[Any] = list(device.buffer_types())
    return own if device is cpu else own + list(cpu.buffer_types())


def lock_memory(buffers: Iterable[Any]) -> None:
    """Lock the buffers in host memory, so that they are never swapped out. Raises ConfigError if refused."""
    on_host = [buffer for buffer in buffers if buffer.type.device.type == "cpu"]
    refused = [buffer for buffer in on_host if not buffer.lock()]
    if refused:
        size = sum(buffer.size for buffer in on_host)
        raise ConfigError(
            f"mlock: the system does not allow locking {format_bytes(size)} of memory; "
            "raise the limit (ulimit -l, LimitMEMLOCK) or omit --mlock"
        )
