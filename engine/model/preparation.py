"""All that is decided about a model before memory is taken: limits, tensors, devices, and the placement."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from engine.architectures import get as architecture_named
from engine.cache import kv_cache
from engine.cache.cell_allocator import BLOCK
from engine.config import ModelParameters, check
from engine.errors import ConfigError, OutOfMemoryError, UnsupportedModelError
from engine.ggml.backend import MAX_THREADS, Device, add_rpc_server, devices
from engine.ggml.tensor import row_size, type_id
from engine.gguf import GGUFFile, printable, validate_model
from engine.host import host_memory, physical_cores
from engine.hparams import HParams
from engine.lora.adapter import AdaptedMatrix, Adapter, read_adapter
from engine.model import placement, rpc
from engine.model.attention import best_attention
from engine.model.loader import Weights, checked_specs
from engine.model.overrides import EXPERTS, Overrides
from engine.model.placement_types import (
    DeviceInfo,
    Needs,
    Part,
    Plan,
    WindowSize,
    estimate_compute,
    estimate_compute_cell,
    number_of_slots,
)
from engine.nn.architecture import Architecture
from engine.nn.binder import TensorSpec
from engine.tokenizer.comparison import check_same_tokens

UNPACKED = "weights on the CPU stay in the mapped file: repacked, which is faster, they would not fit"
SEARCH_STEPS = 8  # for a size of two caches, each of which halves what it is uncertain by
CLBLAST_SCRATCH = 64 << 20  # MOST_SCRATCH of ggml/clblast/product.cpp


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What `engine.model.model.LoadedModel` is made from.

    params: those in effect: a model for embeddings has a cache of its own kind. n_ctx: longest session asked
    for, in tokens; the plan's cells may allow less. specs: the tensors, not yet bound. n_slots: for recurrent
    states. devices: all that ggml reports, by name. adapters: LoRA adapters that fit the model. draft: of the
    draft model. n_draft_vocab: tokens that both have.
    """

    gguf: GGUFFile
    params: ModelParameters
    arch: Architecture
    specs: list[TensorSpec]
    adapters: list[Adapter]
    n_ctx: int
    max_batch_tokens: int
    n_threads: int
    n_slots: int
    devices: dict[str, Device]
    plan: Plan
    overrides: Overrides
    draft: Preparation | None = None
    n_draft_vocab: int = 0

    @property
    def cpu(self) -> Device:
        return cpu_of(self.devices.values())

    def device_of(self, spec: TensorSpec) -> Device:
        """Where a tensor is. The input embedding is looked up on the CPU if that has any layer."""
        if spec.op == "host":  # read by operations of ours
            return self.cpu
        override = self.overrides.device_of(spec.name)
        if override is not None:
            return self.devices[override]
        if 0 <= spec.layer < self.plan.cpu_experts and EXPERTS.search(spec.name):
            return self.cpu
        device = self.layer_devices[max(spec.layer, 0)]
        return self.cpu if spec.layer < 0 and self.cpu in self.layer_devices else device

    @property
    def used_devices(self) -> list[Device]:
        """Those of layers and of overrides, each once."""
        overrides = [self.devices[name] for _, name in self.overrides.rules]
        return list(dict.fromkeys([*self.layer_devices, *overrides]))

    @property
    def layer_devices(self) -> list[Device]:
        """The device of each layer, and of the output as the last one."""
        return [self.devices[name] for name in self.plan.layers]


def preview(path: str | os.PathLike[str], params: ModelParameters | None = None) -> Plan:
    """Where `engine.load` would put the layers of a file, from its header alone.

    Raises what `load` raises where it cannot: OutOfMemoryError has the table in its notes.
    """
    params = params or ModelParameters()
    check(params)
    with ExitStack() as files:
        gguf, draft = open_files(path, params, files)
        return prepare(gguf, params, draft).plan


def open_files(
    path: str | os.PathLike[str], params: ModelParameters, files: ExitStack
) -> tuple[GGUFFile, GGUFFile | None]:
    """The files of the model and of its draft model, if it has one; `files` closes them."""
    gguf = files.enter_context(GGUFFile.open(Path(path)))
    if params.draft_model is None:
        return gguf, None
    return gguf, files.enter_context(GGUFFile.open(Path(params.draft_model)))


def prepare(gguf: GGUFFile, params: ModelParameters, draft: GGUFFile | None = None) -> Preparation:
    """Check the file against its architecture, and plan the placement. Raises what `engine.load` raises.

    draft: the file of the draft model, if there is one.
    """
    for address in params.rpc:
        rpc.handshake(address)
        add_rpc_server(address)
    model = _prepare(gguf, params)
    return model if draft is None else _beside_draft(model, draft, params)


def _beside_draft(model: Preparation, gguf: GGUFFile, params: ModelParameters) -> Preparation:
    """The same with a draft model, whose cache has as many cells. An automatic size is what fits twice."""
    _check_takes_back(model)
    both: Preparation | None = None
    error: OutOfMemoryError | None = None
    least, n, most = 0, model.plan.n_cells, model.plan.n_cells
    for _ in range(SEARCH_STEPS if params.kv_cells is None else 1):
        try:
            candidate = _with_draft(model, gguf, params, n)
            fits = candidate.plan.n_cells >= n
            both = candidate if fits or both is None else both
        except OutOfMemoryError as failure:
            fits, error = False, failure  # the last one is of the fewest cells
        least, most = (n, most) if fits else (least, n)
        n = (least + most) // 2
        if n <= max(least, 1):
            break
    if both is None:
        assert error is not None
        raise error
    return replace(both, n_draft_vocab=check_same_tokens(model.gguf, gguf))


def _with_draft(model: Preparation, gguf: GGUFFile, params: ModelParameters, n_cells: int) -> Preparation:
    """With a draft model of so many cells; what that takes is not free for the model."""
    own = replace(params, context_size=None, kv_cells=n_cells, kv_type="f16", lora_adapters=())
    own = replace(own, tensor_split=(), tensor_overrides=(), cpu_experts=None)
    own = replace(own, gpu_layers=params.draft_gpu_layers)
    if not params.draft_gpu_layers:
        own = replace(own, use_gpu=False, devices=())
    try:
        n_ctx = architecture_named(gguf.arch).hparams(gguf).n_ctx_train
        if n_ctx < 2:
            raise ConfigError(f"it was trained for a context of {n_ctx}; choose another one")
        draft = _prepare(gguf, own)
    except OutOfMemoryError as error:
        text = _of_draft(f"draft model: {error}")
        raise OutOfMemoryError(text, device=error.device, needed=error.needed, free=error.free) from error
    except (ConfigError, UnsupportedModelError) as error:
        raise type(error)(_of_draft(f"draft model: {error}")) from error
    draft = replace(draft, plan=replace(draft.plan, notes=(*map(_of_draft, draft.plan.notes),)))
    _check_takes_back(draft)
    occupied = {u.device.name: u.needed + u.mapped for u in draft.plan.usage}
    if params.memory_limit is not None:
        params = replace(params, memory_limit=max(params.memory_limit - draft.plan.total, 0))
    model = _prepare(model.gguf, params, occupied)
    return replace(model, plan=replace(model.plan, draft=draft.plan), draft=draft)


def _of_draft(text: str) -> str:
    """A message about the draft model, with the names of its parameters."""
    return re.sub(r"\bgpu_layers\b", "draft_gpu_layers", text)


def _check_takes_back(model: Preparation) -> None:
    """ConfigError for a model that does not generate, or cannot take back a draft that was wrong."""
    path, hp = printable(model.gguf.path), model.arch.hp
    if not hp.causal:
        raise ConfigError(f"{path}: a {model.arch.name} model makes embeddings; omit draft_model")
    if hp.recurrence is not None:
        raise ConfigError(
            f"{path}: states of recurrent layers cannot be rolled back after a rejected draft; "
            "omit draft_model, or choose another one"
        )


def _prepare(
    gguf: GGUFFile, params: ModelParameters, occupied: Mapping[str, int] | None = None
) -> Preparation:
    """One model. occupied: bytes by device that others will take."""
    arch_type = architecture_named(gguf.arch)
    validate_model(gguf)
    hp = arch_type.hparams(gguf)
    arch = arch_type(hp)
    specs = checked_specs(arch, gguf)
    n_ctx = params.context_size or hp.n_ctx_train
    notes: tuple[str, ...] = ()
    if not hp.causal and 0 < hp.max_positions < n_ctx:  # the size may be meant for a chat model beside it
        notes = (f"context: {hp.max_positions} tokens, for which the model has positions, not {n_ctx}",)
        n_ctx = hp.max_positions
        params = replace(params, context_size=n_ctx)
    if n_ctx < 2:
        raise ConfigError(f"the model was trained for a context of {n_ctx}; set context_size, at least 2")
    if 0 < hp.max_positions < n_ctx:
        raise ConfigError(
            f"context_size is {n_ctx}, but this model has learned positions for {hp.max_positions} tokens; "
            "omit it, or set it to at most that many"
        )
    max_batch_tokens = max(params.max_batch_tokens, params.parallel)
    if not hp.causal:
        # A text is one batch, whose keys and values are not needed after it.
        max_batch_tokens = max(max_batch_tokens, n_ctx)
        params = replace(params, kv_type="f32", kv_cells=max_batch_tokens)
    by_name = {d.name: d for d in devices()}
    kv_cache.check_type(hp, params.kv_type)
    adapters = [_adapter(loaded.path, gguf.arch, specs) for loaded in params.lora_adapters]
    infos = [DeviceInfo.of(d).without((occupied or {}).get(d.name, 0)) for d in by_name.values()]
    usable = [cpu_of(by_name.values()).name, *(d.name for d in placement.select_gpus(infos, params))]
    overrides = Overrides(params.tensor_overrides, usable)
    notes += (*overrides.idle([spec.name for spec in specs if spec.op != "host"]),)
    n_slots = number_of_slots(hp, params, host_memory()[0])
    memory = _Memory(gguf, hp, specs, params, max_batch_tokens, adapters, n_slots, overrides)
    try:
        plan = placement.plan(memory.needs(by_name.values(), n_ctx), infos, params, n_ctx)
    except OutOfMemoryError as error:
        if error.device != cpu_of(by_name.values()).name or not params.repack or not params.use_mmap:
            raise
        params = replace(params, repack=False)
        memory = replace(memory, params=params)
        plan = placement.plan(memory.needs(by_name.values(), n_ctx), infos, params, n_ctx)
        notes += (UNPACKED,)
    return Preparation(
        gguf=gguf,
        params=params,
        arch=arch,
        specs=specs,
        adapters=adapters,
        n_ctx=n_ctx,
        max_batch_tokens=max_batch_tokens,
        n_threads=params.n_threads or min(physical_cores(), MAX_THREADS),
        n_slots=memory.n_slots,
        devices=by_name,
        plan=replace(plan, notes=(*notes, *plan.notes)),
        overrides=overrides,
    )


def _adapter(path: str, arch: str, specs: list[TensorSpec]) -> Adapter:
    with GGUFFile.open(Path(path)) as gguf:
        return read_adapter(gguf, arch, specs)


def cpu_of(devices: Iterable[Device]) -> Device:
    return next(d for d in devices if d.type == "cpu")


@dataclass(frozen=True)
class _Memory:
    """Sizes for the plan: weights by layer, cache by cell, and working memory. All in bytes."""

    gguf: GGUFFile
    hp: HParams
    specs: list[TensorSpec]
    params: ModelParameters
    rows: int  # of the largest batch
    adapters: list[Adapter]
    n_slots: int  # for recurrent states
    overrides: Overrides

    def needs(self, devices: Iterable[Device], n_ctx: int) -> Needs:
        hp, rows = self.hp, self.rows
        last = 4 * (4 * rows * hp.n_embd + self.params.parallel * hp.n_vocab)  # with little but attention
        parts, elsewhere = self._parts(cpu_of(devices), n_ctx)
        compute, compute_cell = self._working(devices, n_ctx, last)
        return Needs(
            input=parts[-1],
            layers=tuple(parts[: hp.n_layer]),
            output=parts[hp.n_layer],
            compute=compute,
            compute_cell=compute_cell,
            compute_input=4 * rows * hp.n_embd,
            compute_last=last,
            input_moves=self._input_moves(),
            mask_cell=2 * rows,
            states=self.n_slots * hp.state_bytes,
            windows=self._windows(n_ctx),
            elsewhere=elsewhere,
            compute_elsewhere=4 * rows * (2 * hp.n_embd + 3 * self._feed_forward_width()),
        )

    def _feed_forward_width(self) -> int:
        """Elements of a row within the feed-forward networks."""
        hp = self.hp
        return (hp.n_ff_expert or max(hp.n_ff)) * max(hp.n_expert_used, 1) + hp.n_ff_shared

    def _windows(self, n_ctx: int) -> WindowSize | None:
        """Rows of layers with a window; None where there are none, or a window is as long as a session."""
        window, params = self.hp.cache_window, self.params
        if not 0 < window < n_ctx:
            return None
        one = window - 1 + 2 * BLOCK  # `WindowRows.most_held`
        return WindowSize(one, params.parallel * one + self.rows, params.checkpoints)

    def _parts(self, cpu: Device, n_ctx: int) -> tuple[list[Part], dict[str, Part]]:
        """Of each layer, of the output, and last of the input embedding; and what is elsewhere, by device."""
        hp, params = self.hp, self.params
        has_windows = self._windows(n_ctx) is not None
        parts = [
            Part(0, window_row=cell) if has_windows and hp.keeps_window(i) else Part(0, cell)
            for i, cell in enumerate(kv_cache.bytes_per_cell(hp, params.kv_type))
        ]
        parts += [Part(0), Part(0)]  # layer -1 is the input
        elsewhere: dict[str, Part] = {}
        on_host = Weights.on_host(self.gguf, self.specs, cpu.buffer_types(), params.use_mmap, params.repack)
        sizes = [(spec, info.nbytes, info.nbytes * is_mapped) for info, spec, is_mapped in on_host]
        for spec, nbytes, mapped in [*sizes, *((m.spec, m.nbytes, 0) for m in self._matrices())]:
            device = self.overrides.device_of(spec.name)
            if device is not None:
                elsewhere[device] = elsewhere.get(device, Part(0)).plus(nbytes, mapped * (device == cpu.name))
                continue
            is_expert = EXPERTS.search(spec.name) is not None
            parts[spec.layer] = parts[spec.layer].plus(nbytes, mapped, is_expert=is_expert)
        return parts, elsewhere

    def _matrices(self) -> list[AdaptedMatrix]:
        return [matrix for adapter in self.adapters for matrix in adapter.matrices]

    def _working(
        self, devices: Iterable[Device], n_ctx: int, last: int
    ) -> tuple[dict[str, int], dict[str, int]]:
        """By device: working memory, and more of it for each cell of the cache."""
        hp, rows = self.hp, self.rows
        base = estimate_compute(
            rows=rows,
            n_embd=hp.n_embd,
            n_ff=self._feed_forward_width(),
            n_vocab=hp.n_vocab,
            n_outputs=self.params.parallel,
        )
        # CLBlast multiplies float32: it converts that many weights at a time.
        matrices = [spec for spec in self.specs if spec.op == "mul_mat" and spec.layer < hp.n_layer]
        scratch = min(CLBLAST_SCRATCH, 4 * max((math.prod(spec.shape) for spec in matrices), default=0))
        compute, compute_cell = {}, {}
        for d in devices:
            attending = next(filter(hp.attends, range(hp.n_layer)), 0)
            kind = best_attention(d, hp, attending, self.params)
            scores = estimate_compute_cell(rows=rows, n_head=max(hp.n_head), attention=kind)
            # Scores are freed before the feed-forward runs: the larger of both counts.
            here = max(last, base - scores * n_ctx) if kind == "explicit" else base
            compute[d.name] = max(here, self._of_latents()) + scratch * (d.backend == "CLBlast")
            compute_cell[d.name] = scores
            if hp.latent and kind == "explicit":  # values are transposed
                compute_cell[d.name] += row_size(type_id(self.params.kv_type), hp.head_dim_v)
        return compute, compute_cell

    def _of_latents(self) -> int:
        """Bytes of Q in attention on latents: as computed, absorbed, and joined with its rotated part."""
        hp = self.hp
        if hp.latent is None:
            return 0
        width = hp.latent.head_dim_k + 2 * hp.head_dim_k  # of a head
        return 4 * self.rows * (2 * hp.n_embd + max(hp.n_head) * width)

    def _input_moves(self) -> int:
        """What the input embedding takes on a device, where it moves with the layers."""
        # A tied embedding is there already, as the output.
        outputs = {
            spec.name if spec.name in self.gguf.tensors else spec.fallback
            for spec in self.specs
            if spec.layer == self.hp.n_layer
        }
        inputs = {
            spec.name
            for spec in self.specs
            if spec.layer < 0 and spec.name in self.gguf.tensors and not self.overrides.device_of(spec.name)
        }
        adapted = sum(matrix.nbytes for matrix in self._matrices() if matrix.spec.layer < 0)
        return adapted + sum(self.gguf.tensors[name].nbytes for name in inputs - outputs)
