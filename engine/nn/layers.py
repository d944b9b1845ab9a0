"""Linear layers and norms. Shapes in ggml order; rows are the tokens of a batch."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.ggml.operations import Context
from engine.ggml.tensor import Tensor
from engine.graph.forward_context import ForwardContext
from engine.graph.ops.packed import PackedMatrix
from engine.nn.low_rank import Adapters

Matrix = Tensor | PackedMatrix


@dataclass(frozen=True)
class Linear:
    """y = weight x (+ adapters of x) (+ bias). weight [n_in, n_out], x [n_in, rows] -> [n_out, rows]."""

    weight: Matrix
    bias: Tensor | None = None
    adapters: Adapters = field(default_factory=dict)

    def __call__(self, forward: ForwardContext, x: Tensor) -> Tensor:
        ctx = forward.ctx
        y = self.weight.times(ctx, x)
        for number, adapter in self.adapters.items():
            if number in forward.shape.adapters:
                y = ctx.add(y, adapter.of_rows(forward, x, number))
        return y if self.bias is None else ctx.add(y, self.bias)


@dataclass(frozen=True)
class Experts:
    """The same matrix of all experts. weight [n_in, n_out, n_expert], bias [n_out, n_expert].

    x [n_in, n_used | 1, rows], ids I32 [n_used, rows] -> [n_out, n_used, rows].
    """

    weight: Matrix
    bias: Tensor | None
    adapters: Adapters

    def __call__(self, forward: ForwardContext, x: Tensor, ids: Tensor) -> Tensor:
        ctx = forward.ctx
        y = self.weight.times_experts(ctx, x, ids)
        for number, adapter in self.adapters.items():
            if number in forward.shape.adapters:
                y = ctx.add(y, adapter.of_experts(forward, x, ids, number))
        return y if self.bias is None else ctx.add_id(y, self.bias, ids)


@dataclass(frozen=True)
class TokenEmbedding:
    """The rows of a table [n_embd, n_vocab] for the batch's tokens: [n_embd, rows]."""

    table: Tensor
    adapters: Adapters

    def __call__(self, forward: ForwardContext) -> Tensor:
        x = forward.ctx.get_rows(self.table, forward.tokens)
        for number, adapter in self.adapters.items():
            if number in forward.shape.adapters:
                x = forward.ctx.add(x, adapter.of_tokens(forward, number))
        return x


@dataclass(frozen=True)
class RMSNorm:
    """x / rms(x) (* weight) over ne0 (Zhang and Sennrich 2019, arXiv 1910.07467)."""

    weight: Tensor | None
    eps: float

    def __call__(self, ctx: Context, x: Tensor) -> Tensor:
        y = ctx.rms_norm(x, self.eps)
        return y if self.weight is None else ctx.mul(y, self.weight)


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
