"""Loads weights: chooses a memory layout for each tensor, and maps or copies it there.

On the CPU a matrix is repacked if there is a faster kernel for that layout; otherwise it stays in the mapped
file. Repacked weights are read, not mapped, so that they are in memory once.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

from engine.config import ModelParameters
from engine.errors import ModelError, UnsupportedModelError
from engine.ggml.backend import map_host_memory
from engine.ggml.operations import Context
from engine.ggml.tensor import F32, I32, Storage, supports
from engine.gguf import GGMLType, GGUFFile, TensorInfo
from engine.graph.ops.packed import PackedMatrix, can_pack, is_faster_packed
from engine.hparams import HParams
from engine.nn.architecture import Architecture
from engine.nn.binder import Binder, TensorSpec
from engine.types import ProgressCallback

MAP_ALIGNMENT = 32  # bytes; ggml's own requirement for tensors in host memory
PROBE_ROWS = 512  # rows of the test product: as many as in a prefill
IGNORED = ("rotary_emb.inv_freq", "attn_rot_embd")  # written by old converters; we compute them
# Types that the file format can store and ggml cannot compute with: it would abort. Vectors
# (norms, biases, frequency factors) are read as plain F32 everywhere.
NO_MATRIX = frozenset({
    GGMLType.I8, GGMLType.I16, GGMLType.I32, GGMLType.I64, GGMLType.F64, GGMLType.Q8_1, GGMLType.Q8_K,
})  # fmt: skip
MATRIX_OPS = ("mul_mat", "mul_mat_heads", "mul_mat_id", "get_rows")


def checked_specs(arch: Architecture, gguf: GGUFFile) -> list[TensorSpec]:
    """The specs of `arch`, checked against the file: presence, shapes, types, and no tensors left over."""
    binder = Binder(gguf.tensors.__contains__)
    arch.bind(binder)
    used = set()
    for spec in binder.specs:
        info = _find(spec, gguf)
        shape = spec.shape + (1,) * (len(info.shape) - len(spec.shape))
        if tuple(info.shape) + (1,) * (len(shape) - len(info.shape)) != shape:
            raise ModelError(
                f"{gguf.path}: tensor {info.name} has shape {list(info.shape)}, but the model's "
                f"hyperparameters require {list(spec.shape)}"
            )
        if info.type in NO_MATRIX if spec.op in MATRIX_OPS else info.type is not GGMLType.F32:
            raise UnsupportedModelError(
                f"{gguf.path}: tensor {info.name} has type {info.type.name}, which {spec.op} cannot use"
                + ("" if spec.op in MATRIX_OPS else "; it must be F32")
            )
        used.add(info.name)
    unknown = [
        name
        for name in gguf.tensors
        if name not in used and not any(h in name for h in IGNORED) and not _predicts_more(name, arch.hp)
    ]
    if unknown:
        raise UnsupportedModelError(
            f"{gguf.path}: {len(unknown)} tensors are not part of architecture {arch.name} "
            f"({', '.join(sorted(unknown)[:3])}…); running without them would give wrong answers"
        )
    return binder.specs


def _predicts_more(name: str, hp: HParams) -> bool:
    """Whether a tensor belongs to a multi-token prediction layer, which we do not use."""
    block = re.match(r"blk\.(\d+)\.", name)
    return block is not None and hp.n_layer <= int(block[1]) < hp.n_layer + hp.n_mtp


def _find(spec: TensorSpec, gguf: GGUFFile) -> TensorInfo:
    for name in (spec.name, spec.fallback):
        if name is not None and name in gguf.tensors:
            return gguf.tensors[name]
    raise ModelError(f"{gguf.path}: tensor {spec.name} is missing")


class Layout(NamedTuple):
    """A buffer type, and whether the tensor is in our own packed layout (`engine.graph.ops.packed`)."""

    buffer_type: Any
    packed: bool = False

    @property
    def name(self) -> str:
        return f"{self.buffer_type.device.name}_PACKED" if self.packed else str(self.buffer_type.name)

    def can_map(self, info: TensorInfo) -> bool:
        """Whether the tensor can stay in the mapped file."""
        device = self.buffer_type.device
        return bool(
            not self.packed
            and self.buffer_type.is_host
            and device.maps_host_memory
            and self.buffer_type.name == device.buffer_types()[-1].name
            and info.offset % MAP_ALIGNMENT == 0
        )


def choose_layout(spec: TensorSpec, info: TensorInfo, candidates: list[Any], repack: bool) -> Layout:
    """The first layout in which a device can run the spec's operation on a tensor of this type.

    candidates: buffer types, best first. repack False: only the file's layout. UnsupportedModelError if no
    device can.
    """
    own = candidates[0].device.buffer_types()[-1]
    if (
        repack
        and spec.op in ("mul_mat", "mul_mat_id")
        and own.device.type == "cpu"
        and is_faster_packed(int(info.type))
        and can_pack(int(info.type), tuple(info.shape))
    ):
        return Layout(own, packed=True)
    if spec.op == "host":
        return Layout(own)
    for buffer_type in candidates:
        if not repack and buffer_type.name != buffer_type.device.buffer_types()[-1].name:
            continue
        ctx: Any = Context(8)
        weight = ctx.new(int(info.type), tuple(info.shape))
        if supports(buffer_type.device, buffer_type, _probe(ctx, spec, weight), weight):
            return Layout(buffer_type)
    raise UnsupportedModelError(f"no device can run {spec.op} on {info.name} of type {info.type.name}")


def _probe(ctx: Any, spec: TensorSpec, weight: Any) -> Any:
    n = weight.shape[0]
    if spec.op == "mul_mat":
        return ctx.mul_mat(weight, ctx.new(F32, (n, PROBE_ROWS)))
    if spec.op == "mul_mat_heads":
        return ctx.mul_mat(weight, ctx.new(F32, (n, PROBE_ROWS, weight.shape[2])))
    if spec.op == "mul_mat_id":
        return ctx.mul_mat_id(weight, ctx.new(F32, (n, 1, PROBE_ROWS)), ctx.new(I32, (1, PROBE_ROWS)))
    if spec.op == "get_rows":
        return ctx.get_rows(weight, ctx.new(I32, (PROBE_ROWS,)))
    if spec.op == "rope":
        return ctx.mul(ctx.new(F32, (n,)), weight)  # only read as plain numbers
    other = ctx.new(F32, (n, weight.shape[1], PROBE_ROWS))
    if spec.op == "add_id":
        return ctx.add_id(other, weight, ctx.new(I32, (weight.shape[1], PROBE_ROWS)))
    return ctx.mul(other, weight) if spec.op == "mul" else ctx.add(other, weight)


class Weights:
    """The tensors of a model on their devices, and the buffers that hold them."""

    def __init__(
        self,
        gguf: GGUFFile,
        specs: list[TensorSpec],
        candidates: Callable[[TensorSpec], list[Any]],
        params: ModelParameters,
        *,
        n_threads: int,
        progress: ProgressCallback,
    ) -> None:
        """candidates: buffer types for a tensor, best first. n_threads: threads that pack."""
        self.gguf, self.n_threads = gguf, n_threads
        self.tensors: dict[tuple[str, str], Any] = {}
        self.placement: dict[str, str] = {}
        self.buffers: list[Any] = []
        mapped: list[tuple[TensorInfo, Any, Any]] = []
        copied: dict[str, tuple[Layout, list[tuple[TensorInfo, TensorSpec]]]] = {}
        shared: dict[tuple[str, str], tuple[str, str]] = {}
        for spec in specs:
            info = _find(spec, gguf)
            if (info.name, spec.op) in self.tensors:
                continue
            layout = choose_layout(spec, info, candidates(spec), params.repack)
            self.placement[f"{info.name}:{spec.op}"] = layout.name
            there = (op for op in MATRIX_OPS if self.placement.get(f"{info.name}:{op}") == layout.name)
            first = next(there, spec.op)
            if first != spec.op and layout.buffer_type.device.type != "cpu":  # a tied embedding
                self.tensors[info.name, spec.op] = None
                shared[info.name, spec.op] = info.name, first
                continue
            if params.use_mmap and layout.can_map(info):
                ctx = Storage(1)
                tensor = ctx.new(int(info.type), tuple(info.shape), info.name)
                self.tensors[info.name, spec.op] = tensor
                mapped.append((info, ctx, tensor))
                self._map_type = layout.buffer_type
            else:
                self.tensors[info.name, spec.op] = None
                copied.setdefault(layout.name, (layout, []))[1].append((info, spec))
        if mapped:
            self._place(mapped)
        self._copy(copied, progress)
        for key, other in shared.items():
            self.tensors[key] = self.tensors[other]

    @staticmethod
    def on_host(
        gguf: GGUFFile, specs: list[TensorSpec], buffer_types: list[Any], use_mmap: bool, repack: bool
    ) -> Iterator[tuple[TensorInfo, TensorSpec, bool]]:
        """How each spec would be loaded on the CPU: (tensor, spec, whether it stays in the mapped file)."""
        seen = set()
        for spec in specs:
            info = _find(spec, gguf)
            if (info.name, spec.op) not in seen:
                seen.add((info.name, spec.op))
                layout = choose_layout(spec, info, buffer_types, repack)
                yield info, spec, use_mmap and layout.can_map(info)

    def _place(self, mapped: list[tuple[TensorInfo, Any, Any]]) -> None:
        for i, part in enumerate(self.gguf.parts):
            here = [item for item in mapped if item[0].part == i]
            if here:
                largest = max(info.nbytes for info, _, _ in here)
                buffer = map_host_memory(self._map_type, part.mapping(), largest)
                buffer.mark_weights()
                self.buffers.append(buffer)
                for info, ctx, tensor in here:
                    ctx.place(tensor, buffer, self.gguf.data(info))

    def _copy(
        self,
        copied: dict[str, tuple[Layout, list[tuple[TensorInfo, TensorSpec]]]],
        progress: ProgressCallback,
    ) -> None:
        total = sum(info.nbytes for _, items in copied.values() for info, _ in items) or 1
        done = 0
        for layout, items in copied.values():
            ctx: Any = Storage(len(items))
            make = partial(PackedMatrix, ctx) if layout.packed else ctx.new
            tensors = [
                (info, spec, make(int(info.type), tuple(info.shape), info.name)) for info, spec in items
            ]
            buffer = ctx.allocate(layout.buffer_type)
            buffer.mark_weights()
            self.buffers.append(buffer)
            staging = bytearray()
            for info, spec, tensor in sorted(tensors, key=lambda m: -m[0].nbytes):
                if isinstance(tensor, PackedMatrix) and sys.platform != "win32":
                    self.gguf.pass_to(info, partial(tensor.read, n_threads=self.n_threads))
                else:
                    # One staging buffer for all tensors: the largest comes first.
                    staging = staging or bytearray(info.nbytes)
                    view = memoryview(staging)[: info.nbytes]
                    self.gguf.read_into(info, view)
                    if isinstance(tensor, PackedMatrix):
                        tensor.load(view, self.n_threads)
                    else:
                        tensor.set(view)
                self.tensors[info.name, spec.op] = tensor
                done += info.nbytes
                progress(done / total, f"{layout.name}: {info.name}")

    @property
    def row_multiple(self) -> int:
        """The multiple of rows that most products compute best: 4 if weights are repacked."""
        repacked = sum(name.endswith("REPACK") for name in self.placement.values())
        n_products = sum(key.endswith(":mul_mat") for key in self.placement)
        return 4 if 2 * repacked > n_products else 1

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers; a mapped file counts with its whole length."""
        return sum(buffer.size for buffer in self.buffers)

    def close(self) -> None:
        for buffer in self.buffers:
            buffer.close()
        self.gguf.close()
