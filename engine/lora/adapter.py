"""Checks an adapter in the layout of llama.cpp's converter: for a matrix, `NAME.lora_a` and `NAME.lora_b`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NoReturn

from engine.errors import UnsupportedModelError
from engine.gguf import GGMLType, GGUFFile, TensorInfo, printable
from engine.nn.binder import TensorSpec

TYPES = (GGMLType.F32, GGMLType.F16, GGMLType.BF16, GGMLType.Q8_0)  # which the converter writes
# Ranks are padded with zeros to what the CPU kernels of each operation add at a time.
RANK_STEP = {"mul_mat": 16, "get_rows": 16, "mul_mat_id": 32}
MAX_ALPHA = 1e6
A, B = ".lora_a", ".lora_b"


@dataclass(frozen=True, kw_only=True)
class AdaptedMatrix:
    """One matrix of the model, and the adapter's two. spec: of the model's matrix.

    scale: alpha / rank, or 1 if the file has no alpha.
    """

    spec: TensorSpec
    a: TensorInfo
    b: TensorInfo
    rank: int
    scale: float

    @property
    def padded_rank(self) -> int:
        step = RANK_STEP[self.spec.op]
        return -(-self.rank // step) * step

    @property
    def padded(self) -> tuple[TensorSpec, TensorSpec]:
        """a and b as they are in memory: F32, with the padded rank."""
        spec, n = self.spec, self.padded_rank
        n_in, n_out, *experts = spec.shape
        a, b = (n_in, n, *experts), (n, n_out, *experts)
        if spec.op == "get_rows":
            a, b = (n, n_out), (n, n_in)
        of_b = replace(spec, name=self.b.name, shape=b, op="mul_mat" if spec.op == "get_rows" else spec.op)
        return replace(spec, name=self.a.name, shape=a), of_b

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return sum(4 * math.prod(spec.shape) for spec in self.padded)


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """An adapter that fits the model. alpha: 0 if the file has none."""

    path: str
    name: str
    alpha: float
    task_name: str
    prompt_prefix: str
    matrices: tuple[AdaptedMatrix, ...]


def read_adapter(gguf: GGUFFile, arch: str, specs: Iterable[TensorSpec]) -> Adapter:
    """The adapter in a file, checked against the architecture and the tensors of a model.

    Raises ModelError for a file that is damaged, not a LoRA adapter or not for this model, and
    UnsupportedModelError for an unsupported kind of adapter.
    """
    kind = gguf.get_str("general.type", "model")
    if kind != "adapter":
        gguf.fail(f"is of type '{printable(kind)}', not a LoRA adapter")
    kind = gguf.get_str("adapter.type", "")
    if kind != "lora":
        _refuse(gguf, f"is an adapter of type '{printable(kind)}'; only lora is supported")
    if gguf.arch != arch:
        gguf.fail(f"is an adapter for '{printable(gguf.arch)}' models; this one is '{arch}'")
    if gguf.value_type("adapter.alora.invocation_tokens") is not None:
        _refuse(gguf, "is an activated LoRA (aLoRA), which is not supported")
    alpha = gguf.get_float("adapter.lora.alpha", 0.0, min=-MAX_ALPHA, max=MAX_ALPHA)
    if not gguf.tensors:
        gguf.fail("has no tensors")
    by_name = {spec.name: spec for spec in specs}
    return Adapter(
        path=gguf.path,
        name=gguf.get_str("general.name", ""),
        alpha=alpha,
        task_name=gguf.get_str("adapter.lora.task_name", ""),
        prompt_prefix=gguf.get_str("adapter.lora.prompt_prefix", ""),
        matrices=tuple(_matrices(gguf, by_name, alpha)),
    )


def _matrices(gguf: GGUFFile, by_name: dict[str, TensorSpec], alpha: float) -> Iterator[AdaptedMatrix]:
    for name in gguf.tensors:
        base, end = name[:-7], name[-7:]
        if end not in (A, B):
            _refuse(gguf, f"tensor '{printable(name)}' is not part of a low-rank product ({A}, {B})")
        other = base + (B if end == A else A)
        if other not in gguf.tensors:
            gguf.fail(f"tensor '{printable(other)}' is missing; it belongs to '{printable(name)}'")
        if end == B:
            continue
        spec = by_name.get(base)
        if spec is None:
            gguf.fail(f"adapts '{printable(base)}', which the model does not have")
        if spec.op not in ("mul_mat", "mul_mat_id") and base != "token_embd.weight":
            _refuse(gguf, f"adapts '{printable(base)}', which is not a matrix of a layer")
        yield _matrix(gguf, spec, alpha)


def _matrix(gguf: GGUFFile, spec: TensorSpec, alpha: float) -> AdaptedMatrix:
    a, b = gguf.tensors[spec.name + A], gguf.tensors[spec.name + B]
    for info in (a, b):
        if info.type not in TYPES:
            types = ", ".join(kind.name for kind in TYPES)
            _refuse(gguf, f"tensor '{info.name}' has type {info.type.name}; adapters have {types}")
    n_in, n_out, *experts = spec.shape
    rank = _dimension(b, 0)
    expected = (n_in, rank, *experts), (rank, n_out, *experts)
    if spec.op == "get_rows":  # a is looked up by token, so that n_out is the vocabulary
        expected = (rank, n_out), (rank, n_in)
    for info, shape in zip((a, b), expected, strict=True):
        if tuple(_dimension(info, i) for i in range(4)) != (*shape, 1, 1)[:4]:
            gguf.fail(
                f"tensor '{info.name}' has shape {list(info.shape)}; the model's '{spec.name}' of shape "
                f"{list(spec.shape)} requires {list(shape)} (rank {rank})"
            )
    return AdaptedMatrix(spec=spec, a=a, b=b, rank=rank, scale=alpha / rank if alpha else 1.0)


def _dimension(info: TensorInfo, i: int) -> int:
    return info.shape[i] if i < len(info.shape) else 1


def _refuse(gguf: GGUFFile, reason: str) -> NoReturn:
    raise UnsupportedModelError(f"{printable(gguf.path, 400)}: {reason}")
