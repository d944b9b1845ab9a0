"""Linear layers and norms. Shapes in ggml order; rows are the tokens of a batch."""

from __future__ import annotations

from dataclasses import dataclass

from engine.ggml.operations import Context
from engine.ggml.tensor import Tensor
from engine.graph.ops.packed import PackedMatrix

Matrix = Tensor | PackedMatrix


@dataclass(frozen=True)
class Linear:
    """y = weight x (+ bias). weight [n_in, n_out], x [n_in, rows] -> [n_out, rows]."""

    weight: Matrix
    bias: Tensor | None = None

    def __call__(self, ctx: Context, x: Tensor) -> Tensor:
        y = self.weight.times(ctx, x)
        return y if self.bias is None else ctx.add(y, self.bias)


@dataclass(frozen=True)
class RMSNorm:
    """x / rms(x) * weight over ne0 (Zhang and Sennrich 2019, arXiv 1910.07467)."""

    weight: Tensor
    eps: float

    def __call__(self, ctx: Context, x: Tensor) -> Tensor:
        return ctx.mul(ctx.rms_norm(x, self.eps), self.weight)


@dataclass(frozen=True)
class LayerNorm:
    """(x - mean) / standard deviation * weight (+ bias) over ne0 (Ba 2016, arXiv 1607.06450)."""

    weight: Tensor
    bias: Tensor | None
    eps: float

    def __call__(self, ctx: Context, x: Tensor) -> Tensor:
        y = ctx.mul(ctx.norm(x, self.eps), self.weight)
        return y if self.bias is None else ctx.add(y, self.bias)


Norm = RMSNorm | LayerNorm
