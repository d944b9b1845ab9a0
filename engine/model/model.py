"""A loaded model: weights on their devices, the KV cache, the runner, and what sessions share."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from engine import architectures
from engine.cache import kv_cache, session_file
from engine.cache.cell_pool import CellPool
from engine.cache.prefix_cache import PrefixIndex
from engine.config import InferenceSessionConfig, ModelParameters, SchedulerConfig, check
from engine.constraint.compiler import Compiler, vocabulary_of
from engine.constraint.guide import Guides
from engine.errors import ConfigError, DeviceError, ModelError, SessionClosedError
from engine.ggml.backend import MAX_THREADS, Backend, Device, add_rpc_server, devices
from engine.ggml.operations import Context
from engine.ggml.sched import Sched
from engine.ggml.tensor import F16, F32, I64, runs_on, type_id
from engine.gguf import GGUFFile, validate_model
from engine.graph.forward_context import MASK_PAD, n_nodes
from engine.graph.model_runner import Runner
from engine.model import placement as offload
from engine.model import rpc
from engine.model.description import describe
from engine.model.host import physical_cores
from engine.model.loader import Progress, Weights, wanted
from engine.model.placement_types import (
    DeviceInfo,
    Needs,
    Part,
    Plan,
    estimate_compute,
    estimate_compute_cell,
    human,
)
from engine.nn.binder import Binder, Slot
from engine.nn.hparams import Architecture
from engine.scheduler.scheduler import Scheduler
from engine.session import InferenceSession
from engine.tasks import embedding
from engine.tasks.runner import TaskRunner
from engine.tokenizer import Tokenizer, load_tokenizer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CLBLAST_SCRATCH = 64 << 20  # MOST_SCRATCH of ggml/clblast/product.cpp
log = logging.getLogger("ggserve.engine")


def load(
    path: str | os.PathLike[str], params: ModelParameters | None = None, progress: Progress | None = None
) -> Model:
    """Load a GGUF file. `progress(fraction, text)` is called while weights are brought in.

    Raises ModelError for a bad file, UnsupportedModelError for one that we cannot run, ConfigError
    for parameters out of range, OutOfMemoryError and DeviceError as their names say.
    """
    return Model(Path(path), params or ModelParameters(), progress)


def preview(path: str | os.PathLike[str], params: ModelParameters | None = None) -> Plan:
    """Where `load` would put the layers of a file, from its header alone.

    Raises what `load` raises where it cannot: OutOfMemoryError has the table in its notes.
    """
    model = Model.__new__(Model)
    model.params = params or ModelParameters()
    check(model.params)
    with GGUFFile.open(Path(path)) as gguf:
        model._prepare(gguf, model.params)
    return model.plan


class Model:
    """A model ready to run. Only one thread at a time may use it: the engine thread.

    `tokenizer`, `runner`, `pool`, `prefix`, `n_ctx` and `max_batch_tokens` are what sessions are made of.
    """

    def __init__(self, path: Path, params: ModelParameters, progress: Progress | None) -> None:
        self.params, self.closed = params, False
        self._closing: list[Any] = []
        self._compiler: Compiler | None = None
        check(params)
        gguf = GGUFFile.open(path)
        self._closing.append(gguf)
        try:
            self._load(gguf, params, progress or (lambda fraction, text: None))
        except BaseException:
            self.close()
            raise

    def _prepare(self, gguf: GGUFFile, params: ModelParameters) -> tuple[Architecture, list[Slot]]:
        """All that is decided before memory is taken: hyperparameters, tensors, limits, and the plan."""
        self.gguf = gguf
        arch_type = architectures.get(gguf.arch)
        validate_model(gguf)
        self.hp = hp = arch_type.hparams(gguf)
        arch = arch_type(hp)
        slots = wanted(arch, gguf)
        n_ctx = params.context_size or hp.n_ctx_train
        if n_ctx < 2:
            raise ConfigError(f"the model was trained for a context of {n_ctx}; set context_size, at least 2")
        if 0 < hp.max_positions < n_ctx:
            raise ConfigError(
                f"context_size is {n_ctx}, but this model has learned positions for {hp.max_positions} tokens"
            )
        self.max_batch_tokens = max(params.max_batch_tokens, params.parallel)
        if not hp.causal:
            # A text is one batch, whose keys and values are needed no longer than that.
            self.max_batch_tokens = max(self.max_batch_tokens, n_ctx)
            params = replace(params, kv_type="f32", kv_cells=self.max_batch_tokens)
            self.params = params
        self.n_threads = params.n_threads or min(physical_cores(), MAX_THREADS)

        for address in params.rpc:
            rpc.greet(address)
            add_rpc_server(address)
        self.devices = {d.name: d for d in devices()}
        cpu = next(d for d in self.devices.values() if d.type == "cpu")
        kv_cache.check_type(hp, params.kv_type)
        self.plan = offload.plan(
            self._needs(gguf, slots, cpu, n_ctx),
            [DeviceInfo.of(d) for d in self.devices.values()],
            params,
            n_ctx,
        )
        self.n_ctx = n_ctx
        return arch, slots

    def _load(self, gguf: GGUFFile, params: ModelParameters, progress: Progress) -> None:
        arch, slots = self._prepare(gguf, params)
        params, hp = self.params, self.hp
        cpu = next(d for d in self.devices.values() if d.type == "cpu")
        log.info("plan:\n%s", self.plan.table())
        self.layer_devices = [self.devices[name] for name in self.plan.layers]
        self.n_cells = self.plan.n_cells
        self.n_ctx = min(self.n_ctx, self.n_cells)

        self.weights = Weights(
            gguf,
            slots,
            self._candidates,
            use_mmap=params.use_mmap,
            repack=params.repack,
            n_threads=self.n_threads,
            progress=lambda f, text: progress(0.9 * f, text),
        )
        self._closing.append(self.weights)
        arch.bind(Binder(gguf.tensors.__contains__, self.weights.tensors))
        for device in dict.fromkeys(self.layer_devices[:-1]):
            self._check_writes_cache(device)
        self.attention = [self._attention_on(self.layer_devices[i], i) for i in range(hp.n_layer)]
        self.cache = kv_cache.KVCache(
            hp,
            self.n_cells,
            params.kv_type,
            [d.buffer_types()[-1] for d in self.layer_devices[:-1]],
            zeroed=any(kind != "paged" for kind in self.attention),
        )
        self._closing.append(self.cache)
        used = [d for d in dict.fromkeys(self.layer_devices) if d is not cpu]
        if params.mlock:
            self._lock_memory()
        self.backends = [*map(Backend, used), Backend(cpu, self.n_threads)]
        self._closing.extend(self.backends)
        self.sched = Sched(self.backends, 2 * n_nodes(hp))
        self._closing.append(self.sched)
        self.runner = Runner(
            arch,
            self.cache,
            self.sched,
            self.attention,
            ["cpu" if device is cpu else device.backend.lower() for device in self.layer_devices[:-1]],
            self.max_batch_tokens,
            self.weights.row_multiple,
        )
        self._closing.append(self.runner)
        self.runner.reserve(params.parallel if hp.causal else self.max_batch_tokens)
        self.pool = CellPool(self.n_cells)
        self.prefix = PrefixIndex(self.pool)
        self._tokenizer: Tokenizer | None = None
        self._fingerprint: str | None = None
        progress(1.0, "ready")

    def _needs(self, gguf: GGUFFile, slots: list[Slot], cpu: Device, n_ctx: int) -> Needs:
        """Sizes for the plan: weights by layer, cache by cell, and working memory."""
        hp, params = self.hp, self.params
        weights, mapped = [0] * (hp.n_layer + 2), [0] * (hp.n_layer + 2)  # the last one is the input's
        for info, slot, is_mapped in Weights.on_host(
            gguf, slots, cpu.buffer_types(), params.use_mmap, params.repack
        ):
            weights[slot.layer] += info.nbytes
            mapped[slot.layer] += info.nbytes if is_mapped else 0
        per_cell = kv_cache.bytes_per_cell(hp, params.kv_type)
        rows = self.max_batch_tokens
        base = estimate_compute(
            rows=rows,
            n_embd=hp.n_embd,
            n_ff=(hp.n_ff_expert or max(hp.n_ff)) * max(hp.n_expert_used, 1) + hp.n_ff_shared,
            n_vocab=hp.n_vocab,
            n_outputs=params.parallel,
        )
        # CLBlast multiplies float32: it turns that many weights at a time into such.
        matrices = [slot for slot in slots if slot.op == "mul_mat" and slot.layer < hp.n_layer]
        largest = max((math.prod(slot.shape) for slot in matrices), default=0)
        scratch = min(CLBLAST_SCRATCH, 4 * largest)
        last = 4 * (4 * rows * hp.n_embd + params.parallel * hp.n_vocab)  # with little but attention
        compute, compute_cell = {}, {}
        for d in self.devices.values():
            kind = self._attention_on(d, 0, demanded=False)
            scores = estimate_compute_cell(rows=rows, n_head=max(hp.n_head), attention=kind)
            # Scores are gone when the feed-forward works: the larger of both counts.
            here = max(last, base - scores * n_ctx) if kind == "explicit" else base
            compute[d.name] = here + scratch * (d.backend == "CLBlast")
            compute_cell[d.name] = scores
        # A tied embedding is on the device already, as the head.
        output_names = {
            name for slot in slots if slot.layer == hp.n_layer for name in (slot.name, slot.instead)
        }
        inputs = {
            s.name: gguf.tensors[s.name].nbytes for s in slots if s.layer < 0 and s.name in gguf.tensors
        }
        parts = [Part(w, m_cell, m) for w, m_cell, m in zip(weights, [*per_cell, 0, 0], mapped, strict=True)]
        return Needs(
            input=parts[-1],
            layers=tuple(parts[: hp.n_layer]),
            output=parts[hp.n_layer],
            compute=compute,
            compute_cell=compute_cell,
            compute_input=4 * rows * hp.n_embd,
            compute_last=last,
            input_moves=sum(n for name, n in inputs.items() if name not in output_names),
            mask_cell=2 * rows,
        )

    def _lock_memory(self) -> None:
        buffers = [b for b in (*self.weights.buffers, *self.cache.buffers) if b.type.device.type == "cpu"]
        refused = [b for b in buffers if not b.lock()]
        if refused:
            size = sum(b.size for b in buffers)
            raise ConfigError(
                f"mlock: the system does not let us lock {human(size)} of memory; "
                "raise the limit (ulimit -l, LimitMEMLOCK) or leave --mlock out"
            )

    def _candidates(self, slot: Slot) -> list[Any]:
        """Buffer types for a tensor, best first. The input is looked up on the CPU if that has any layer."""
        cpu = next(d for d in self.devices.values() if d.type == "cpu")
        device = self.layer_devices[max(slot.layer, 0)]
        if slot.layer < 0 and cpu in self.layer_devices:
            device = cpu
        own: list[Any] = list(device.buffer_types())
        return own if device is cpu else own + list(cpu.buffer_types())

    def _check_writes_cache(self, device: Device) -> None:
        """ConfigError if the device cannot store keys and values in the cache's type."""
        ctx: Any = Context(8)
        width = self.hp.head_dim_k * self.hp.n_head_kv[0]
        table = ctx.new(type_id(self.params.kv_type), (width, MASK_PAD))
        written = ctx.set_rows(table, ctx.new(F32, (width, 1)), ctx.new(I64, (1,)))
        if not runs_on(device, written):
            raise ConfigError(
                f"{device.name} cannot keep a cache of --kv-type {self.params.kv_type}; use f16"
            )

    def _attention_on(self, device: Device, layer: int, demanded: bool = True) -> str:
        """Our kernel on the CPU, else ggml's flash attention where the device has it.

        demanded: DeviceError, ConfigError where what was asked for is impossible; else the best there is.
        """
        choice, hp = self.params.flash_attn, self.hp
        if choice == "auto" and device.type == "cpu":
            return "paged"
        ctx: Any = Context(8)
        heads, kv_heads, kv_type = hp.n_head[layer], hp.n_head_kv[layer], type_id(self.params.kv_type)
        k = ctx.new(kv_type, (hp.head_dim_k, MASK_PAD, kv_heads))
        v = ctx.new(kv_type, (hp.head_dim_v, MASK_PAD, kv_heads))
        q, mask = ctx.new(F32, (hp.head_dim_k, 1, heads)), ctx.new(F16, (MASK_PAD, 1))
        has_flash = runs_on(device, ctx.flash_attention(q, k, v, mask, 1.0))
        if choice == "auto" and device.backend == "RPC":
            has_flash = rpc.surely_has_flash(hp.head_dim_k, hp.head_dim_v)
        if choice != "off" and has_flash:
            return "flash"
        if not demanded:
            return "explicit"
        if choice == "on":
            raise DeviceError(
                f"device {device.name} has no flash attention for this model; use --flash-attn auto"
            )
        if self.params.kv_type not in ("f16", "f32", "bf16"):
            raise ConfigError(
                f"kv_type {self.params.kv_type} needs flash attention, which {device.name} lacks or is off"
            )
        return "explicit"

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
        """A scheduler that runs requests on this model, sharing its cells and its prefix cache.

        ModelError for a model that only makes embeddings.
        """
        self._check_generates()
        config = SchedulerConfig(
            parallel=parallel or self.params.parallel,
            n_ctx=self.n_ctx,
            max_batch_tokens=self.max_batch_tokens,
            eog_ids=self.eog_ids,
        )
        return Scheduler(self.runner, self.pool, config, prefix=self.prefix, guides=self.guides())

    def guides(self) -> Guides:
        """What makes the guides of one scheduler or session; what they compile is kept for all."""
        if self._compiler is None:
            self._compiler = Compiler(lambda: vocabulary_of(self.tokenizer, self.hp.n_vocab))
        return Guides(self._compiler, self._token_bytes, self.hp.n_vocab, self.eog_ids)

    def _token_bytes(self, token: int) -> bytes:
        """What a token contributes to text. Some models have logits for more tokens than there are."""
        return self.tokenizer.token_bytes(token) if token < self.tokenizer.n_vocab else b""

    @property
    def generates(self) -> bool:
        """Whether it makes text; else only embeddings."""
        return self.hp.causal

    def tasks(self) -> TaskRunner:
        """Embeddings and saved slots, in steps beside those of a scheduler."""
        self._check_open()
        return TaskRunner(self)

    def start_session(self, config: InferenceSessionConfig | None = None) -> InferenceSession:
        """A session of its own batch size, for use in this process without a scheduler.

        ModelError for a model that only makes embeddings.
        """
        self._check_generates()
        return InferenceSession(self, config or InferenceSessionConfig())

    def embed(
        self, tokens: Sequence[int], *, pooling: str = "auto", normalize: bool = True, second: int = 0
    ) -> NDArray[np.float32]:
        """The embedding of a text: float32 [n_embd]; `engine.tasks.embedding.embed` takes many at once."""
        self._check_open()
        options = {"pooling": pooling, "normalize": normalize, "second": [second]}
        (found,) = filter(None, embedding.embed(self, [tokens], **options))  # type: ignore[arg-type]
        return found.vector

    def restore_session(
        self,
        path: str | os.PathLike[str],
        config: InferenceSessionConfig | None = None,
        progress: Progress | None = None,
    ) -> InferenceSession:
        """The session that `InferenceSession.save` wrote, ready to go on.

        Raises ModelError if the file is damaged or of another model, ConfigError if the model was loaded with
        another `kv_type` or too small a context, OutOfMemoryError if the cache has no room for it.
        """
        session = self.start_session(config)
        try:
            session.restore(path, progress)
        except BaseException:
            session.close()
            raise
        return session

    @property
    def fingerprint(self) -> str:
        """What a saved session knows its model by; see `engine.cache.session_file.fingerprint`."""
        self._check_open()
        if self._fingerprint is None:
            self._fingerprint = session_file.fingerprint(self.gguf)
        return self._fingerprint

    def set_threads(self, n: int | None) -> None:
        """Threads that the CPU computes with from now on; None: as loaded."""
        self._check_open()
        for backend in self.backends:
            if backend.device.type == "cpu":
                backend.set_threads(n or self.n_threads)

    def describe(self) -> dict[str, Any]:
        """What was loaded and where it is, as plain data."""
        self._check_open()
        return describe(self)

    def _check_generates(self) -> None:
        self._check_open()
        if not self.hp.causal:
            raise ModelError(
                f"{self.gguf.path}: a {self.gguf.arch} model makes embeddings; it cannot generate text"
            )

    def _check_open(self) -> None:
        if self.closed:
            raise SessionClosedError("the model was closed")

    def close(self) -> None:
        """Free everything: graphs, cache, weights, backends, file. Sessions stop working."""
        self.closed = True
        self.runner = None
        if self._compiler is not None:
            self._compiler.close()
        while self._closing:
            self._closing.pop().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
