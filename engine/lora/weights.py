"""The matrices of one adapter in memory, each on the device of its layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import ModelError
from engine.ggml.quantize import dequantize
from engine.ggml.tensor import F32, Storage, Tensor
from engine.gguf import GGUFFile, TensorInfo
from engine.lora.adapter import AdaptedMatrix, Adapter
from engine.nn.binder import TensorSpec
from engine.nn.low_rank import MIN_ROWS_ON_CPU, LowRank

# Larger numbers are damage. Products of them could overflow, and an infinity times the scale 0 of a row that
# does not use the adapter would be NaN.
LIMIT = 65504.0


class AdapterWeights:
    """`matrices`: by the name of the model's tensor. `buffers`: their memory, freed by `close`."""

    def __init__(self, gguf: GGUFFile, adapter: Adapter, buffer_type: Callable[[TensorSpec], Any]) -> None:
        """buffer_type: the buffer type of a matrix. Raises ModelError for invalid values."""
        self.adapter = adapter
        self.fingerprint = ""  # of the file, for saved sessions
        self.matrices: dict[str, LowRank] = {}
        self.buffers: list[Any] = []
        by_type: dict[str, tuple[Any, list[tuple[AdaptedMatrix, TensorSpec]]]] = {}
        for matrix in adapter.matrices:
            for spec in matrix.padded:
                place = buffer_type(spec)
                by_type.setdefault(place.name, (place, []))[1].append((matrix, spec))
        tensors: dict[str, tuple[Tensor, bool]] = {}
        try:
            for place, items in by_type.values():
                self._fill(gguf, place, items, tensors)
        except BaseException:
            self.close()
            raise
        for matrix in adapter.matrices:
            (a, on_cpu), (b, _) = tensors[matrix.a.name], tensors[matrix.b.name]
            self.matrices[matrix.spec.name] = LowRank(a, b, MIN_ROWS_ON_CPU if on_cpu else 1)

    def _fill(
        self,
        gguf: GGUFFile,
        place: Any,
        items: list[tuple[AdaptedMatrix, TensorSpec]],
        tensors: dict[str, tuple[Tensor, bool]],
    ) -> None:
        storage = Storage(len(items))
        new = [storage.new(F32, spec.shape, spec.name) for _, spec in items]
        buffer = storage.allocate(place)
        self.buffers.append(buffer)
        buffer.mark_weights()
        for (matrix, spec), tensor in zip(items, new, strict=True):
            tensor.set(_padded(gguf, matrix, spec).tobytes())
            tensors[spec.name] = tensor, place.device.type == "cpu"

    @property
    def nbytes(self) -> int:
        return sum(buffer.size for buffer in self.buffers)

    def close(self) -> None:
        for buffer in self.buffers:
            buffer.close()


def _padded(gguf: GGUFFile, matrix: AdaptedMatrix, spec: TensorSpec) -> NDArray[np.float32]:
    """One of the matrices as it is in memory, in numpy's order; the factor alpha / rank is in b."""
    is_b = spec.name == matrix.b.name
    values = _values(gguf, matrix.b if is_b else matrix.a, len(spec.shape))
    if is_b:
        values = values * np.float32(matrix.scale)
    if not (np.abs(values) <= LIMIT).all():  # NaN is not
        raise ModelError(f"{gguf.path}: tensor {spec.name} has values that are not finite or above {LIMIT:g}")
    padded = np.zeros(spec.shape[::-1], np.float32)
    padded[tuple(map(slice, values.shape))] = values
    return padded


def _values(gguf: GGUFFile, info: TensorInfo, n_dims: int) -> NDArray[np.float32]:
    """All values of a tensor, in numpy's order."""
    raw = bytearray(info.nbytes)
    gguf.read_into(info, memoryview(raw))
    shape = (*info.shape, 1, 1)[:n_dims]  # trailing ones may be left out
    rows = dequantize(info.type.ggml_name, raw, info.n_elements // shape[0], shape[0])
    return rows.reshape(shape[::-1])
