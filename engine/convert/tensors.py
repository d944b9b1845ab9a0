"""Tensors of safetensors files, read one by one as the numbers that they mean."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf.utility import LocalTensor

from engine.errors import ModelError, UnsupportedModelError

Array = np.ndarray[Any, np.dtype[Any]]
_DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}
_FP8 = ("F8_E4M3", "F8_E5M2")
FP8_BLOCK = (128, 128)  # rows and columns that share a scale, where config.json does not say


@dataclass(frozen=True)
class SourceTensor:
    """One tensor of the folder as it is stored; shape in numpy's order."""

    name: str
    tensor: LocalTensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    @property
    def dtype(self) -> str:
        """As safetensors call it: F32, BF16, F8_E4M3, I64, BOOL, …"""
        return str(self.tensor.dtype)

    @property
    def is_float(self) -> bool:
        """Whether it can be a weight; buffers are often integers or booleans."""
        return self.dtype in _DTYPES or self.dtype in _FP8

    @property
    def where(self) -> str:
        """File and name, for messages."""
        return f"{self.tensor.data_range.filename}: tensor {self.name}"

    def check(self) -> None:
        """UnsupportedModelError for a type that is no float, ModelError where it does not fit its file."""
        if not self.is_float:
            supported = ", ".join((*_DTYPES, *_FP8))
            raise UnsupportedModelError(f"{self.where} has type {self.dtype} (supported: {supported})")
        item = 1 if self.dtype in _FP8 else np.dtype(_DTYPES[self.dtype]).itemsize
        check_size(self, item)

    def read(self) -> Array:
        """Its values, float32."""
        raw = self.tensor.mmap_bytes()
        if self.dtype in _FP8:
            values: Array = _fp8_values(self.dtype)[raw].reshape(self.shape)
            return values
        typed = raw.view(_DTYPES[self.dtype]).reshape(self.shape)
        if self.dtype == "BF16":
            wide = typed.astype(np.uint32)
            wide <<= 16  # the upper half of a float32
            return wide.view(np.float32)
        return typed.astype(np.float32)


@dataclass(frozen=True)
class FP8Tensor:
    """An FP8 weight with its scales: one, one for each row, or one for each block of rows and columns.

    block: rows and columns that share a scale. The value is weight * scale, also where the checkpoint calls
    the scale `weight_scale_inv` (DeepSeek-V3, arXiv 2412.19437, section 3.3).
    """

    weight: SourceTensor
    scales: SourceTensor
    block: tuple[int, int] = FP8_BLOCK

    @property
    def shape(self) -> tuple[int, ...]:
        return self.weight.shape

    def check(self) -> None:
        """Raises what SourceTensor.check does, and ModelError where the scales do not fit the weight."""
        self.weight.check()
        self.scales.check()
        if self._kind is None:
            raise ModelError(
                f"{self.scales.where} of shape {list(self.scales.shape)} does not fit a weight of shape "
                f"{list(self.shape)} in blocks of {list(self.block)}"
            )

    @property
    def _kind(self) -> str | None:
        scales, shape = self.scales.shape, self.shape
        if int(np.prod(scales)) == 1:
            return "tensor"
        if scales in (shape[:1], (*shape[:-1], 1)):
            return "row"
        blocks = tuple(-(-n // b) for n, b in zip(shape[-2:], self.block, strict=False))
        return "block" if len(shape) >= 2 and scales == (*shape[:-2], *blocks) else None

    def read(self) -> Array:
        """Its values, float32."""
        x, scales = self.weight.read(), self.scales.read()
        if self._kind == "tensor":
            x *= scales.reshape(())
        elif self._kind == "row":
            x *= scales.reshape(*scales.shape, 1) if scales.ndim < x.ndim else scales
        else:
            n_rows, n_columns = self.shape[-2:]
            wide = scales.repeat(self.block[1], axis=-1)[..., :n_columns]
            for first in range(0, n_rows, self.block[0]):
                row = first // self.block[0]
                x[..., first : first + self.block[0], :] *= wide[..., row : row + 1, :]
        return x


@dataclass(frozen=True)
class MXFP4Tensor:
    """A weight in MXFP4 (OCP Microscaling 1.0): packed numbers and their scales.

    shape: numpy's order, in bytes, which are those of ggml: 17 for each 32 numbers.
    """

    blocks: SourceTensor  # [..., n / 32, 16]
    scales: SourceTensor  # [..., n / 32]

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.scales.shape[:-1], self.scales.shape[-1] * 17)

    def check(self) -> None:
        """ModelError where blocks and scales do not belong together, or do not fit their file."""
        kinds = (self.blocks.dtype, self.scales.dtype)
        if kinds != ("U8", "U8") or self.blocks.shape != (*self.scales.shape, 16):
            raise ModelError(f"{self.blocks.where}: its blocks and scales are not those of MXFP4")
        check_size(self.blocks, 1)
        check_size(self.scales, 1)

    def read(self) -> Array:
        """uint8. Neighbours share a byte in the folder; in ggml those that are 16 apart do."""
        raw = self.blocks.tensor.mmap_bytes().reshape(self.blocks.shape)
        numbers = np.stack([raw & 15, raw >> 4], axis=-1).reshape(*raw.shape[:-1], 32)
        scales = self.scales.tensor.mmap_bytes().reshape(*self.scales.shape, 1)
        packed = np.concatenate([scales, numbers[..., :16] | numbers[..., 16:] << 4], axis=-1)
        return packed.reshape(self.shape)


Weight = SourceTensor | FP8Tensor | MXFP4Tensor


def check_size(source: SourceTensor, item: int) -> None:
    """ModelError where a tensor with elements of `item` bytes does not fit its file."""
    t = source.tensor
    size = int(np.prod(source.shape)) * item
    end = t.data_range.offset + t.data_range.size
    if t.data_range.size != size or size <= 0 or end > Path(t.data_range.filename).stat().st_size:
        raise ModelError(
            f"{source.where} does not fit the file, which is damaged or was not downloaded whole"
        )


def _fp8_values(dtype: str) -> Array:
    """The value of each byte, float32 [256] (OCP 8-bit floating point, revision 1.0)."""
    codes = np.arange(256, dtype=np.uint16)
    if dtype == "F8_E5M2":  # the upper half of a float16
        return (codes << 8).view(np.float16).astype(np.float32)
    exponent, mantissa = (codes >> 3) & 15, (codes & 7).astype(np.float32)
    values = np.where(
        exponent == 0, np.ldexp(mantissa, -9), np.ldexp(1 + mantissa / 8, exponent.astype(np.int32) - 7)
    ).astype(np.float32)
    values[(codes & 127) == 127] = np.nan
    return np.where(codes & 128, -values, values).astype(np.float32)
