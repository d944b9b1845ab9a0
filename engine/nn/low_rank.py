"""Low-rank adapters of matrices: W x + s B A x, with one scale s for each row of the batch.

(Hu 2021, arXiv 2106.09685.) Rows that do not use an adapter have the scale 0, and get W x + 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engine.ggml.operations import Context
from engine.ggml.tensor import Tensor
from engine.graph.forward_context import ForwardContext

# ggml's CPU kernels sum in another order where a product has fewer rows, and a row's result must not depend
# on how many there are.
MIN_ROWS_ON_CPU = 4


@dataclass(frozen=True)
class LowRank:
    """What one adapter adds to one matrix. a: F32 [n_in, rank], b: F32 [rank, n_out].

    Of experts: [n_in, rank, n_expert] and [rank, n_out, n_expert]. Of an embedding, a is a table of rows for
    the tokens: [rank, n_vocab]. min_rows: fewer rows are repeated, see `MIN_ROWS_ON_CPU`.
    """

    a: Tensor
    b: Tensor
    min_rows: int

    def of_rows(self, forward: ForwardContext, x: Tensor, adapter: int) -> Tensor:
        """For x [n_in, rows] -> [n_out, rows]."""
        ctx = forward.ctx
        scaled = ctx.mul(self._times(ctx, self.a, x), forward.adapter_scales(adapter, x.shape[1]))
        return self._times(ctx, self.b, scaled)

    def of_experts(self, forward: ForwardContext, x: Tensor, ids: Tensor, adapter: int) -> Tensor:
        """x [n_in, n_used | 1, rows], ids I32 [n_used, rows] -> [n_out, n_used, rows]"""
        ctx, rows = forward.ctx, x.shape[2]
        scales = ctx.reshape(forward.adapter_scales(adapter, rows), 1, 1, rows)
        return ctx.mul_mat_id(self.b, ctx.mul(ctx.mul_mat_id(self.a, x, ids), scales), ids)

    def of_tokens(self, forward: ForwardContext, adapter: int) -> Tensor:
        """-> [n_embd, rows]"""
        ctx, tokens = forward.ctx, forward.tokens
        scales = forward.adapter_scales(adapter, tokens.shape[0])
        return self._times(ctx, self.b, ctx.mul(ctx.get_rows(self.a, tokens), scales))

    def _times(self, ctx: Context, matrix: Tensor, x: Tensor) -> Tensor:
        rows = x.shape[1]
        if rows >= self.min_rows:
            return ctx.mul_mat(matrix, x)
        y = ctx.mul_mat(matrix, ctx.repeat(x, -(-self.min_rows // rows)))
        return ctx.view(y, (y.shape[0], rows), (y.strides[1],))


Adapters = Mapping[int, LowRank]  # those of one matrix, by the adapter's number
