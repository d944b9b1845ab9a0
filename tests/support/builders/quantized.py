"""Matrices in every block format that ggml computes with, and the floats that they mean.

What the `gguf` package can quantize it does; two formats that it lacks are done here. The others get random
blocks with sane scales, for any bits are valid there, and the package's `dequantize` tells the truth
independently of ggml.
"""

from __future__ import annotations

from typing import NamedTuple

import gguf
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Q = gguf.GGMLQuantizationType


class Format(NamedTuple):
    number: int  # ggml's
    block: int  # elements
    size: int  # bytes
    scale: int | None = None  # offset of the f16 that scales a block; None: quantized by the package
    least: tuple[int, float] | None = None  # offset of the f16 of the minimum, and its size per scale
    #                                         that gives random blocks mean zero


FORMATS = {
    "F16": Format(1, 1, 2),
    "BF16": Format(30, 1, 2),
    "Q4_0": Format(2, 32, 18),
    "Q4_1": Format(3, 32, 20),
    "Q5_0": Format(6, 32, 22),
    "Q5_1": Format(7, 32, 24),
    "Q8_0": Format(8, 32, 34),
    "TQ1_0": Format(34, 256, 54),
    "TQ2_0": Format(35, 256, 66),
    "MXFP4": Format(39, 32, 17),
    "Q2_K": Format(10, 256, 84, 80, (82, 1.5)),
    "Q3_K": Format(11, 256, 110, 108),
    "Q4_K": Format(12, 256, 144, 0, (2, 7.5)),
    "Q5_K": Format(13, 256, 176, 0, (2, 15.5)),
    "Q6_K": Format(14, 256, 210, 208),
    "IQ2_XXS": Format(16, 256, 66, 0),
    "IQ2_XS": Format(17, 256, 74, 0),
    "IQ3_XXS": Format(18, 256, 98, 0),
    "IQ1_S": Format(19, 256, 50, 0),
    "IQ4_NL": Format(20, 32, 18, 0),
    "IQ3_S": Format(21, 256, 110, 0),
    "IQ2_S": Format(22, 256, 82, 0),
    "IQ4_XS": Format(23, 256, 136, 0),
    "IQ1_M": Format(29, 256, 56, -1),  # the scale's bits are spread over the block
    "NVFP4": Format(40, 64, 36, -1),  # four bytes of E4M3
    "Q1_0": Format(41, 128, 18),
    "Q2_0": Format(42, 64, 18),
}
HERE = ("Q1_0", "Q2_0")  # formats that the package lacks: one bit and two bits an element


def dequantize(name: str, blocks: Bytes) -> Floats:
    """[…, bytes of a row] -> […, elements]."""
    if name not in HERE:
        return gguf.quants.dequantize(blocks, Q[name]).astype(np.float32)
    b = blocks.reshape(*blocks.shape[:-1], -1, FORMATS[name].size)
    scale = b[..., :2].copy().view(np.float16).astype(np.float32)
    if name == "Q1_0":  # -scale or scale
        values = np.unpackbits(b[..., 2:], axis=-1, bitorder="little") * 2.0 - 1
    else:  # -1, 0, 1 or 2 times scale
        values = ((b[..., 2:, None] >> np.array([0, 2, 4, 6], np.uint8)) & 3).reshape(*b.shape[:-1], 64) - 1.0
    return (values * scale).reshape(*blocks.shape[:-1], -1).astype(np.float32)


def _quantize_here(name: str, weights: Floats) -> Bytes:
    w = weights.reshape(*weights.shape[:-1], -1, FORMATS[name].block)
    scale = w.std(axis=-1, keepdims=True)
    if name == "Q1_0":
        codes = np.packbits(w > 0, axis=-1, bitorder="little")
    else:
        quads = np.clip(np.round(w / scale) + 1, 0, 3).astype(np.uint8).reshape(*w.shape[:-1], 16, 4)
        codes = (quads << np.array([0, 2, 4, 6], np.uint8)).sum(axis=-1, dtype=np.uint8)
    blocks = np.concatenate([scale.astype("<f2").view(np.uint8), codes], axis=-1)
    return blocks.reshape(*weights.shape[:-1], -1)


def quantize(name: str, weights: Floats, rng: np.random.Generator) -> tuple[bytes, Floats]:
    """(data in format `name`, what it means): near `weights`, or random with their deviation."""
    f = FORMATS[name]
    if f.scale is None:
        if name == "F16":
            return weights.astype("<f2").tobytes(), weights.astype(np.float16).astype(np.float32)
        blocks = _quantize_here(name, weights) if name in HERE else gguf.quants.quantize(weights, Q[name])
        return blocks.tobytes(), dequantize(name, blocks.view(np.uint8))
    shape = (*weights.shape[:-1], weights.shape[-1] // f.block, f.size)
    blocks = rng.integers(0, 256, shape, np.uint8)
    row = (*weights.shape[:-1], -1)
    _set_scales(name, blocks, np.ones(shape[:-1]))
    unit = dequantize(name, blocks.reshape(row)).std()
    scales = weights.std() / unit * rng.uniform(0.7, 1.3, shape[:-1])
    if name != "NVFP4":  # Codes of mean other than 0 would send every input into one direction.
        scales *= rng.choice([-1, 1], shape[:-1])
    _set_scales(name, blocks, scales)
    return blocks.tobytes(), dequantize(name, blocks.reshape(row))


def _set_scales(name: str, blocks: Bytes, scales: npt.NDArray[np.float64]) -> None:
    f = FORMATS[name]
    half = scales.astype("<f2")
    if name == "IQ1_M":  # the upper four bits of the four u16 behind qs and qh are the f16's nibbles
        bits = half.view(np.uint16)
        for i in range(4):
            high = blocks[..., 48 + 2 * i + 1]
            high[...] = (high & 15) | (((bits >> (4 * i)) & 15) << 4).astype(np.uint8)
    elif name == "NVFP4":  # no sign, 4 bits of exponent (bias 7), 3 of mantissa
        exponent = np.clip(np.floor(np.log2(scales)), -6, 8).astype(np.int64)
        blocks[..., :4] = (((exponent + 7) << 3).astype(np.uint8))[..., None] | (blocks[..., :4] & 7)
    else:
        at = f.scale
        blocks[..., at : at + 2] = half[..., None].view(np.uint8)
        if f.least is not None:
            at, per_scale = f.least
            blocks[..., at : at + 2] = (scales * per_scale).astype("<f2")[..., None].view(np.uint8)
