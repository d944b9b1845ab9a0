"""Reads pre-GGUF files: container, hyperparameters, vocabulary, and where the tensors are.

Containers: `ggml` (no version), `ggmf` 1 (adds token scores), `ggjt` 1 to 3 (aligns tensor data to 32 bytes).
The layout of quantized blocks changed twice: GGUF has that of quantization version 2 (ggjt 3, or a file type
of 2000 and above); q5_0 and q5_1 already had it in version 1.
"""

from __future__ import annotations

import math
import mmap
import re
import struct
from dataclasses import dataclass, field
from pathlib import Path

import gguf

from engine.convert.legacy.formats import FLOAT_FIELDS, FORMATS
from engine.errors import ConfigError, ModelError, UnsupportedModelError
from engine.gguf import printable

MAX_VOCAB, MAX_TEXT, MAX_DIMENSION = 1 << 21, 4096, 1 << 31
_CONTAINERS = {b"lmgg": "ggml", b"fmgg": "ggmf", b"tjgg": "ggjt", b"algg": "ggla"}
_VERSIONS = {"ggmf": (1,), "ggjt": (1, 2, 3)}
_PLAIN = ("F32", "F16")
_SINCE = {"Q5_0": 1, "Q5_1": 1}  # quantization version since which a type has the layout of GGUF; others: 2
_TYPES = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")


@dataclass
class LegacyTensor:
    """`name` as in GGUF; shape in ggml's order; its bytes begin at `offset` of the file."""

    name: str
    type: gguf.GGMLQuantizationType
    shape: tuple[int, ...]
    offset: int
    nbytes: int


@dataclass
class LegacyFile:
    """values: the hyperparameters by key. tokens: bytes of each, scores if the container has them."""

    path: Path
    architecture: str
    container: str
    version: int
    quantization_version: int
    values: dict[str, int | float]
    tokens: list[bytes]
    scores: list[float] | None
    tensors: dict[str, LegacyTensor] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return printable(str(self.path))

    @property
    def kind(self) -> str:
        return f"{self.container}{self.version or ''}"


class _Mismatch(Exception):
    """The file does not fit the architecture that is being tried; the message says why."""


class _Cursor:
    """Reads forward; every size is checked against the file before memory is taken."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at = data, 0

    def take(self, n: int) -> bytes:
        if n > len(self.data) - self.at:
            raise _Mismatch(f"the file ends at byte {len(self.data)}, in the middle of a field")
        self.at += n
        return self.data[self.at - n : self.at]

    def integer(self) -> int:
        return int(struct.unpack("<i", self.take(4))[0])

    def number(self) -> float:
        return float(struct.unpack("<f", self.take(4))[0])

    def text(self, n: int, what: str) -> bytes:
        if not 0 <= n <= MAX_TEXT:
            raise _Mismatch(f"{what} has {n} bytes")
        return self.take(n)


def read(path: Path, architecture: str | None) -> LegacyFile:
    """Read the file's header. No file names its architecture: the one whose tensors it has is taken.

    Raises ModelError for a damaged file or another container, UnsupportedModelError for an obsolete layout
    of quantized blocks, ConfigError for an `architecture` that never had such files.
    """
    if architecture is not None and architecture not in FORMATS:
        raise ConfigError(
            f"architecture is {architecture!r}; pre-GGUF files exist for {', '.join(sorted(FORMATS))}"
        )
    candidates = [architecture] if architecture is not None else sorted(FORMATS)
    with path.open("rb") as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise ModelError(f"{printable(str(path))} is empty") from None
    with data:
        container, version = _container(path, data)
        mismatch = ""
        for candidate in candidates:
            try:
                legacy_file = _read_as(path, candidate, data, container, version)
            except _Mismatch as error:
                mismatch = str(error)
                continue
            _check_types(legacy_file)
            return legacy_file
    reason = f"as {architecture}: {mismatch}" if architecture is not None else "it fits none of them"
    raise ModelError(
        f"{printable(str(path))}: damaged, or not a model of {', '.join(candidates)} ({reason}); "
        f"{'the download may be incomplete' if architecture else '--architecture NAME shows why not'}"
    )


def _container(path: Path, data: mmap.mmap) -> tuple[str, int]:
    container = _CONTAINERS.get(data[:4])
    if container is None:
        raise ModelError(
            f"{printable(str(path))} is neither GGUF nor one of its predecessors (ggml, ggmf, ggjt)"
        )
    if container == "ggla":
        raise UnsupportedModelError(f"{printable(str(path))} is a LoRA adapter (ggla), not a model")
    if container == "ggml":
        return container, 0
    version = int.from_bytes(data[4:8], "little")
    if version not in _VERSIONS[container]:
        raise UnsupportedModelError(f"{printable(str(path))} is {container} of the unknown version {version}")
    return container, version


def _read_as(path: Path, architecture: str, data: mmap.mmap, container: str, version: int) -> LegacyFile:
    layout = FORMATS[architecture]
    cursor = _Cursor(data)
    cursor.take(4 if container == "ggml" else 8)
    values: dict[str, int | float] = {}
    for name in layout.fields:
        values[name] = cursor.number() if name in FLOAT_FIELDS else cursor.integer()
    for name, value in values.items():
        if not math.isfinite(value) or value < 0 or (value == 0 and name.endswith(("_count", "_length"))):
            raise _Mismatch(f"{name} is {value}")
    file_type = cursor.integer()
    n_vocab = cursor.integer() if layout.repeats_n_vocab else int(values["n_vocab"])
    if not 1 <= n_vocab <= MAX_VOCAB:
        raise _Mismatch(f"it has {n_vocab} tokens")
    tokens, scores = [], []
    for i in range(n_vocab):
        tokens.append(cursor.text(cursor.integer(), f"token {i}"))
        if container != "ggml":
            scores.append(cursor.number())
    quantization_version = file_type // 1000 or {("ggjt", 2): 1, ("ggjt", 3): 2}.get((container, version), 0)
    legacy_file = LegacyFile(
        path,
        architecture,
        container,
        version,
        quantization_version,
        values,
        tokens,
        scores if scores else None,
    )
    tensor_names = layout.tensor_names(architecture)
    while cursor.at < len(data):
        tensor = _tensor(cursor, tensor_names, container)
        if tensor.name in legacy_file.tensors:
            raise _Mismatch(f"tensor {tensor.name} occurs twice")
        legacy_file.tensors[tensor.name] = tensor
    if not legacy_file.tensors:
        raise _Mismatch("it has no tensors")
    return legacy_file


def _tensor(cursor: _Cursor, tensor_names: dict[str, str], container: str) -> LegacyTensor:
    n_dims, n_name, number = cursor.integer(), cursor.integer(), cursor.integer()
    if not 1 <= n_dims <= 2:
        raise _Mismatch(f"a tensor has {n_dims} dimensions")
    shape = tuple(cursor.integer() for _ in range(n_dims))
    raw = cursor.text(n_name, "a tensor's name").decode("utf-8", "replace")
    try:
        kind = gguf.GGMLQuantizationType(number)
    except ValueError:
        raise _Mismatch(f"tensor {printable(raw)} has the unknown type {number}") from None
    name = _gguf_name(raw, tensor_names)
    block, size = gguf.GGML_QUANT_SIZES[kind]
    if min(shape) < 1 or max(shape) >= MAX_DIMENSION or shape[0] % block:
        raise _Mismatch(f"tensor {printable(raw)} has the shape {list(shape)}")
    if container == "ggjt":
        cursor.at = (cursor.at + 31) & ~31
    nbytes = math.prod(shape) // block * size
    offset = cursor.at
    if nbytes > len(cursor.data) - offset:
        raise _Mismatch(f"the file ends in the middle of tensor {printable(raw)}")
    cursor.at += nbytes
    return LegacyTensor(name, kind, shape, offset, nbytes)


def _gguf_name(name: str, tensor_names: dict[str, str]) -> str:
    """The GGUF name of a tensor; `model/h0/ln_1/g` is read as transformers' h.0.ln_1.weight."""
    plain = re.sub(r"(^|/)h(\d+)/", r"\1h/\2/", name.removeprefix("model/")).replace("/", ".")
    stem, _, end = plain.rpartition(".")
    ends = {"weight": "weight", "g": "weight", "w": "weight", "bias": "bias", "b": "bias"}
    if not stem or end not in ends:
        stem, end = plain, "weight"
    layer = re.search(r"(?<=\.)\d+(?=\.)", stem)
    target = tensor_names.get(re.sub(r"(?<=\.)\d+(?=\.)", "{i}", stem, count=1))
    if target is None:
        raise _Mismatch(f"it has a tensor {printable(name)}")
    return target.replace("{i}", layer[0] if layer else "") + f".{ends[end]}"


def _check_types(file: LegacyFile) -> None:
    """Refuse types whose blocks had another layout in this version, and types that such files never had."""
    version = file.quantization_version
    for tensor in file.tensors.values():
        kind = tensor.type.name
        if kind in _PLAIN:
            continue
        if kind not in _TYPES or version > 2:
            raise UnsupportedModelError(
                f"{file.label}: tensor {tensor.name} is {kind} of quantization version {version}, "
                "which is unknown"
            )
        if version < _SINCE.get(kind, 2):
            raise UnsupportedModelError(
                f"{file.label} ({file.kind}) has {kind} blocks of quantization version {version}; "
                f"GGUF has those of version 2. Convert the f16 or f32 file of this model, then quantize it"
            )
