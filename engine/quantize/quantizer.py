"""Quantizes a GGUF file: its matrices become one type, or a mixture of types.

Works for any architecture, supported or not: only names and shapes matter.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

from engine.errors import ConfigError, GgmlError, ModelError
from engine.ggml.quantize import dequantize, needs_importance, quantize
from engine.gguf import GGMLType, GGUFFile, TensorInfo
from engine.gguf.output import replacing, write_data
from engine.host import physical_cores
from engine.quantize.importance import read_importance
from engine.quantize.mixes import ALIASES, MIXES, Mixture, ModelTraits, quantizable
from engine.types import ProgressCallback

__all__ = ["Change", "quantize_file", "type_names"]

# ggml would write these without importances, but the models would be unusable.
POOR_WITHOUT_IMPORTANCE = ("iq3_xxs", "iq2_xxs", "iq2_xs", "iq2_s", "iq1_m", "iq1_s")
_CHUNK = 1 << 22  # elements that a thread quantizes at a time
_BLOCK_SIZES = {t.ggml_name: t.block_size for t in GGMLType}


@dataclass(frozen=True)
class Change:
    """One tensor before and after."""

    name: str
    shape: tuple[int, ...]  # ggml order
    before: str
    after: str
    bytes_before: int
    bytes_after: int


def type_names() -> list[str]:
    """The names that `quantize_file` takes as type."""
    return [*MIXES, *ALIASES]


def mixture_name(type: str) -> str:
    """The mixture of this name or alias. The ConfigError lists the names."""
    mix = ALIASES.get(type.upper(), type.upper())
    if mix not in MIXES:
        raise ConfigError(f"unknown type {type}; supported are {', '.join(type_names())}")
    return mix


def types_without_importance(
    shapes: dict[str, tuple[int, ...]], mix: str, traits: ModelTraits
) -> tuple[dict[str, str], list[str]]:
    """The type of each tensor of a float32 model (shapes in ggml order), and remarks on those that differ.

    ConfigError for types that need importances.
    """
    mixture = Mixture(mix, traits, _BLOCK_SIZES)
    fell_back: dict[str, list[str]] = {}
    order = sorted(shapes, key=_place)
    mixture.count(order)
    types = dict.fromkeys(order, "f32")
    for name in order:
        shape = shapes[name]
        if not quantizable(name, _n_dims(shape)):
            continue
        types[name] = kind = mixture.type_of(name, shape)
        if shape[0] % _BLOCK_SIZES[mixture.default]:
            fell_back.setdefault(kind, []).append(name)
        if _is_poor(kind, mix) and name not in ("output.weight", "token_embd.weight"):
            raise ConfigError(
                f"{name} as {kind} needs an imatrix file: convert to f16, then `ggserve quantize --imatrix`"
            )
    return types, [
        f"{len(names)} tensors are {kind}: rows are not whole blocks of {mixture.default} ({names[0]} …)"
        for kind, names in fell_back.items()
    ]


def quantize_file(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    type: str,
    *,
    threads: int | None = None,
    imatrix: str | os.PathLike[str] | None = None,
    keep_output: bool = False,
    output_type: str | None = None,
    embedding_type: str | None = None,
    pure: bool = False,
    requantize: bool = False,
    force: bool = False,
    split_max_size: int = 0,
    progress: ProgressCallback | None = None,
) -> list[Change]:
    """Write `target` with the matrices of `source` as `type` (one of `type_names()`).

    Each keyword is an option of `ggserve quantize`. keep_output: leave output.weight as it is; output_type,
    embedding_type: give these tensors that type; pure: all matrices the same type; requantize: allow a source
    that is quantized already, which costs quality twice; split_max_size: bytes of tensors in each part of a
    split model, 0: one file. Raises ConfigError for bad arguments, ModelError for a bad source; the file, or
    all parts, appear whole or not at all.
    """
    mix = mixture_name(type)
    source, target = Path(source), Path(target)
    if target.exists() and source.exists() and source.samefile(target):
        raise ConfigError(f"{target} is the source itself")
    importance = read_importance(imatrix) if imatrix is not None else {}
    fixed = {"output.weight": output_type, "token_embd.weight": embedding_type}
    for kind in filter(None, fixed.values()):
        if kind.lower().replace("_k", "_K") not in _BLOCK_SIZES:
            raise ConfigError(f"unknown tensor type {kind}")
    with GGUFFile.open(source) as file:
        tensors = sorted(file.tensors.values(), key=lambda t: _place(t.name))
        mixture = Mixture(mix, _traits(file, bool(importance)), _BLOCK_SIZES)
        types = _types(tensors, mixture, fixed, keep_output=keep_output, pure=pure)
        importance = {name: _by_expert(file, name, rows) for name, rows in importance.items()}
        quantization = _Quantization(file, tensors, types, mix, importance)
        quantization.check(requantize)
        with replacing(target, force) as path:
            arch = file.get_str("general.architecture", "")
            with closing(gguf.GGUFWriter(str(path), arch, split_max_size=split_max_size)) as writer:
                quantization.write_header(writer)
                data = quantization.data(threads or physical_cores())
                write_data(writer, data, sum(t.nbytes for t in tensors), progress)
        return [
            Change(t.name, tuple(t.shape), t.type.ggml_name, types[t.name], t.nbytes, _size(t, types[t.name]))
            for t in tensors
        ]


def _by_expert(file: GGUFFile, name: str, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """As [experts, n]; .dat files have the experts' importances in one row."""
    t = file.tensors.get(name)
    if t is not None and rows.shape[-1] == t.shape[0] * math.prod(t.shape[2:]):
        return rows.reshape(-1, t.shape[0])
    return rows


def _place(name: str) -> tuple[int, str]:
    block = re.match(r"blk\.(\d+)\.", name)
    return (int(block[1]) if block else -1, name)


def _n_dims(shape: Sequence[int]) -> int:
    return max((i + 1 for i, n in enumerate(shape) if n > 1), default=1)


def _is_poor(kind: str, mix: str) -> bool:
    return kind in POOR_WITHOUT_IMPORTANCE or (kind == "q2_K" and mix == "Q2_K_S")


def _size(t: TensorInfo, kind: str) -> int:
    member = next(m for m in GGMLType if m.ggml_name == kind)
    return int(t.n_elements // member.block_size * member.type_size)


def _traits(file: GGUFFile, has_importance: bool) -> ModelTraits:
    arch = file.get_str("general.architecture", "")
    n_layer = file.get_int(f"{arch}.block_count", 0)
    heads = file.get_ints(f"{arch}.attention.head_count", None, [1])
    kv = file.get_ints(f"{arch}.attention.head_count_kv", None, heads)
    return ModelTraits(
        n_layer=n_layer,
        n_gqa=max(max(heads) // max(*kv, 1), 1),
        n_expert=file.get_int(f"{arch}.expert_count", 0),
        tied="output.weight" not in file.tensors,
        has_importance=has_importance,
        one_norm=arch == "falcon",
    )


def _types(
    tensors: list[TensorInfo],
    mixture: Mixture,
    fixed: dict[str, str | None],
    *,
    keep_output: bool,
    pure: bool,
) -> dict[str, str]:
    mixture.count([t.name for t in tensors])
    types = {}
    for t in tensors:
        kind = fixed.get(t.name)
        if not quantizable(t.name, _n_dims(t.shape)) or (keep_output and t.name == "output.weight"):
            types[t.name] = t.type.ggml_name
        elif kind is not None:
            types[t.name] = kind.lower().replace("_k", "_K")
        else:
            types[t.name] = mixture.type_of(t.name, tuple(t.shape), pure=pure)
    return types


@dataclass(frozen=True)
class _Quantization:
    """The plan for a file. types: of each tensor in the result. importance: empty if unknown."""

    file: GGUFFile
    tensors: list[TensorInfo]  # in the order of layers and names
    types: dict[str, str]
    mix: str
    importance: dict[str, npt.NDArray[np.float32]]

    def check(self, requantize: bool) -> None:
        """Raises ConfigError for a tensor that cannot or should not get its type."""
        plain = (GGMLType.F32, GGMLType.F16, GGMLType.BF16)
        for t in self.tensors:
            kind = self.types[t.name]
            if kind == t.type.ggml_name:
                continue
            if t.type not in plain and not requantize:
                raise ConfigError(
                    f"{self.file.path} is quantized already ({t.name} is {t.type.name}); take the original, "
                    "or accept the loss of quality with --allow-requantize"
                )
            if t.shape[0] % _BLOCK_SIZES[kind]:
                raise ConfigError(f"{t.name} has rows of {t.shape[0]}, which are not whole blocks of {kind}")
            poor = _is_poor(kind, self.mix) and t.name not in ("output.weight", "token_embd.weight")
            importance = self.importance.get(t.name)
            if (needs_importance(kind) or poor) and importance is None:
                needs = "an imatrix file (--imatrix) is needed for"
                what = "the imatrix file lacks" if self.importance else needs
                raise ConfigError(f"{what} {t.name} as {kind}")
            if importance is not None and importance.shape[-1] != t.shape[0]:
                n = importance.shape[-1]
                raise ConfigError(f"{n} importances for {t.name}, whose rows have {t.shape[0]}")

    def write_header(self, writer: gguf.GGUFWriter) -> None:
        """Write keys and tensor descriptions; keys of the source that still apply are copied."""
        changed = ("architecture", "file_type", "quantization_version", "alignment")
        for name, entry in gguf.GGUFReader(self.file.path).fields.items():
            if not name.startswith(("GGUF.", "split.")) and name.removeprefix("general.") not in changed:
                kinds = entry.types
                writer.add_key_value(name, entry.contents(), kinds[0], kinds[1] if len(kinds) > 1 else None)
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        writer.add_uint32("general.file_type", MIXES[self.mix][0])
        for t in self.tensors:
            kind = self.types[t.name]
            shape, dtype = tuple(reversed(t.shape)), np.dtype(np.float32)
            number = gguf.GGMLQuantizationType[kind.upper()]
            writer.add_tensor_info(t.name, shape, dtype, _size(t, kind), number)

    def data(self, threads: int) -> Iterator[tuple[TensorInfo, npt.NDArray[np.uint8]]]:
        """Each tensor with its bytes in its new type."""
        with ThreadPoolExecutor(threads) as pool:
            for t in self.tensors:
                try:
                    yield t, self._quantized(t, pool)
                except GgmlError as error:
                    raise ModelError(f"{self.file.path}: {t.name}: {error}") from error

    def _quantized(self, t: TensorInfo, pool: ThreadPoolExecutor) -> npt.NDArray[np.uint8]:
        kind, importance = self.types[t.name], self.importance.get(t.name)
        raw = np.frombuffer(self.file.data(t), np.uint8)
        if kind == t.type.ggml_name:
            return raw
        n, n_rows = t.shape[0], t.n_elements // t.shape[0]
        row, step = raw.size // n_rows, max(_CHUNK // n, 1)
        per_expert = n_rows // (t.shape[2] if len(t.shape) > 2 else 1)

        def chunk(begin: int, end: int) -> npt.NDArray[np.uint8]:
            rows = dequantize(t.type.ggml_name, raw[begin * row : end * row].data, end - begin, n)
            weights = None
            if importance is not None:
                weights = np.ascontiguousarray(importance[begin // per_expert % len(importance)])
            return quantize(kind, rows, weights)

        spans = [
            (begin, min(begin + step, first + per_expert))
            for first in range(0, n_rows, per_expert)
            for begin in range(first, first + per_expert, step)
        ]
        return np.concatenate(list(pool.map(lambda span: chunk(*span), spans)))
