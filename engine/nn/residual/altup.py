"""Parallel residual streams, of which a layer computes one (Baykal 2023, AltUp, arXiv 2301.13310)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.ggml.operations import Context
from engine.ggml.tensor import Tensor
from engine.graph.forward_context import ForwardContext
from engine.hparams import HParams
from engine.nn.attention import Attention
from engine.nn.binder import Binder
from engine.nn.decoder import Decoder, PerLayerInput, PerLayerInputs
from engine.nn.feed_forward import FeedForward
from engine.nn.layers import Linear, Norm, RMSNorm

TINY = 1e-12  # a row of zeros has no direction


class Streams:
    """The first stream is the embedding; each other one is a matrix times it, with its magnitude."""

    def __init__(self, binder: Binder, hp: HParams) -> None:
        self.n, shape = hp.n_streams, (hp.n_embd, hp.n_embd, hp.n_streams - 1)
        self.spreading = binder.tensor("altup_proj.weight", shape, "mul_mat_heads", 0)
        self.merging = binder.tensor("altup_unembd_proj.weight", shape, "mul_mat_heads", hp.n_layer)

    def spread(self, ctx: Context, x: Tensor) -> list[Tensor]:
        """[n_embd, rows] -> the same of each stream."""
        size = _magnitude(ctx, x)
        return [x, *(_times(ctx, self.spreading, i, x, size) for i in range(self.n - 1))]

    def through(self, forward: ForwardContext, x: Tensor, layers: Sequence[Any]) -> Tensor | None:
        """x through the layers, each an AugmentedLayer; None without outputs."""
        streams: list[Tensor] | None = self.spread(forward.ctx, x)
        for i, layer in enumerate(layers):
            streams = layer(forward, streams, last=i == len(layers) - 1)
        return None if streams is None else self.merge(forward.ctx, streams)

    def merge(self, ctx: Context, streams: list[Tensor]) -> Tensor:
        """The mean of all streams, each but the first times a matrix."""
        total, *others = streams
        size = _magnitude(ctx, total)
        for i, x in enumerate(others):
            total = ctx.add(total, _times(ctx, self.merging, i, x, size))
        return ctx.scale(total, 1.0 / self.n)


@dataclass(frozen=True)
class AlternatingUpdate:
    """The update of the streams before and after a layer computes the first of them."""

    n: int
    router_norm: RMSNorm
    router: Linear  # [n_embd, n]
    predicting: Linear  # [n, n * n]
    correcting: Linear  # [n, n]

    @classmethod
    def bind(cls, binder: Binder, hp: HParams, i: int) -> AlternatingUpdate:
        n, blk = hp.n_streams, f"blk.{i}.altup"
        return cls(
            n,
            binder.rms_norm(f"{blk}_router_norm", (hp.n_embd,), hp.eps, i),
            binder.linear(f"{blk}_router", hp.n_embd, n, i),
            binder.linear(f"{blk}_predict_coef", n, n * n, i),
            binder.linear(f"{blk}_correct_coef", n, n, i),
        )

    def predict(self, forward: ForwardContext, streams: list[Tensor]) -> list[Tensor]:
        """Each stream plus a mixture of all streams, weighted by the first."""
        ctx = forward.ctx
        weights = self.predicting(forward, self._modalities(forward, streams[0]))
        predicted = []
        for j, x in enumerate(streams):
            for i, stream in enumerate(streams):
                x = ctx.add(x, ctx.mul(stream, _row(ctx, weights, j * self.n + i)))
            predicted.append(x)
        return predicted

    def correct(self, forward: ForwardContext, predicted: list[Tensor], x: Tensor) -> list[Tensor]:
        """Each prediction plus a part of the computed stream's difference from its own prediction."""
        ctx = forward.ctx
        weights = self.correcting(forward, self._modalities(forward, x))
        difference = ctx.add(x, ctx.scale(predicted[0], -1.0))
        return [
            ctx.add(ctx.add(stream, difference), ctx.mul(difference, _row(ctx, weights, j)))
            for j, stream in enumerate(predicted)
        ]

    def _modalities(self, forward: ForwardContext, x: Tensor) -> Tensor:
        """[n, rows]"""
        ctx = forward.ctx
        normed = ctx.scale(self.router_norm(ctx, x), 1.0 / x.shape[0])
        return ctx.tanh(self.router(forward, normed))


@dataclass(frozen=True, kw_only=True)
class AugmentedLayer:
    """A layer on the first of several streams, with a block of low rank beside its attention (LAuReL).

    attn_norm, ffn_norm: applied to a block's input; attn_post_norm, ffn_post_norm: to its output.
    left, right, low_norm: the block of low rank. again: added to all streams but the first.
    again_scale: F32 [n_embd], multiplies what `again` reads.
    """

    update: AlternatingUpdate
    attention: Attention
    ffn: SparseFeedForward
    attn_norm: Norm
    attn_post_norm: Norm
    ffn_norm: Norm
    ffn_post_norm: Norm
    left: Linear
    right: Linear
    low_norm: Norm
    again: PerLayerInput
    again_scale: Tensor

    @classmethod
    def bind(
        cls, binder: Binder, hp: HParams, i: int, attention: Attention, inputs: PerLayerInputs
    ) -> AugmentedLayer:
        def norm(name: str) -> RMSNorm:
            return binder.rms_norm(f"blk.{i}.{name}", (hp.n_embd,), hp.eps, i)

        return cls(
            update=AlternatingUpdate.bind(binder, hp, i),
            attention=attention,
            ffn=SparseFeedForward(binder, hp, i, hp.gate_cutoffs[i]),
            attn_norm=norm("attn_norm"),
            attn_post_norm=norm("post_attention_norm"),
            ffn_norm=norm("ffn_norm"),
            ffn_post_norm=norm("post_ffw_norm"),
            left=binder.linear(f"blk.{i}.laurel_l", hp.n_embd, hp.n_low_rank, i),
            right=binder.linear(f"blk.{i}.laurel_r", hp.n_low_rank, hp.n_embd, i),
            low_norm=norm("laurel_post_norm"),
            again=inputs.layer(binder, hp, i),
            again_scale=binder.tensor(f"blk.{i}.altup_correct_scale.weight", (hp.n_embd,), "mul", i),
        )

    def __call__(self, forward: ForwardContext, streams: list[Tensor], last: bool) -> list[Tensor] | None:
        """Like `Layer`, for each stream."""
        ctx = forward.ctx
        predicted = self.update.predict(forward, streams)
        normed = self.attn_norm(ctx, predicted[0])
        attended = self.attention(forward, normed)
        if attended is None:
            return None
        if last:  # from here on only the rows whose outputs are wanted matter
            attended, normed = forward.outputs_of(attended), forward.outputs_of(normed)
            predicted = [forward.outputs_of(stream) for stream in predicted]
        low = ctx.add(normed, self.low_norm(ctx, self.right(forward, self.left(forward, normed))))
        x = ctx.add(self.attn_post_norm(ctx, attended), predicted[0])
        x = ctx.scale(ctx.add(x, low), 2**-0.5)
        x = ctx.add(x, self.ffn_post_norm(ctx, self.ffn(forward, self.ffn_norm(ctx, x))))
        first, *others = self.update.correct(forward, predicted, x)
        more = self.again.of(forward, ctx.mul(first, self.again_scale), last)
        return [first, *(ctx.add(stream, more) for stream in others)]


class AugmentedDecoder(Decoder):
    """A decoder whose `layer` is an AugmentedLayer."""

    def bind(self, binder: Binder) -> None:
        super().bind(binder)
        self.streams = Streams(binder, self.hp)

    def through_layers(self, forward: ForwardContext, embedded: Tensor) -> Tensor | None:
        return self.streams.through(forward, embedded, self.layers)


class SparseFeedForward(FeedForward):
    """down(gelu(gate x) * up x), where all but the largest values of a gate are zero.

    cutoff: how many standard deviations above the mean of a row; None: all values count.
    """

    def __init__(self, binder: Binder, hp: HParams, layer: int, cutoff: float | None) -> None:
        super().__init__(binder, hp, layer, activation="gelu")
        self.cutoff = cutoff

    def __call__(self, forward: ForwardContext, x: Tensor) -> Tensor:
        if self.cutoff is None:
            return super().__call__(forward, x)
        assert self.gate is not None
        gate = self.above(forward.ctx, self.gate(forward, x), self.cutoff)
        hidden = forward.activate(self.layer, self.activation, gate, self.up(forward, x))
        return self.down(forward, hidden)

    def above(self, ctx: Context, x: Tensor, cutoff: float) -> Tensor:
        """max(x - (mean + cutoff * standard deviation), 0) of each row."""
        n = x.shape[0]
        mean = ctx.scale(ctx.sum_rows(x), 1.0 / n)
        deviation = ctx.scale(ctx.sum_rows(ctx.mul(x, ctx.norm(x, TINY))), 1.0 / n)
        limit = ctx.add(mean, ctx.scale(deviation, cutoff))
        return ctx.activation(ctx.add(x, ctx.scale(limit, -1.0)), "relu")


def _magnitude(ctx: Context, x: Tensor) -> Tensor:
    """[1, rows]: the root mean square of each row."""
    return ctx.scale(ctx.sum_rows(ctx.mul(x, ctx.rms_norm(x, TINY))), 1.0 / x.shape[0])


def _times(ctx: Context, matrices: Tensor, i: int, x: Tensor, size: Tensor) -> Tensor:
    """Matrix `i` times x, with the root mean square `size`."""
    stride, step = matrices.strides[1:3]
    matrix = ctx.view(matrices, matrices.shape[:2], (stride,), i * step)
    return ctx.mul(ctx.rms_norm(ctx.mul_mat(matrix, x), TINY), size)


def _row(ctx: Context, weights: Tensor, i: int) -> Tensor:
    """[1, rows]: one weight for each row of the batch."""
    return ctx.view(weights, (1, weights.shape[1]), (weights.strides[1],), 4 * i)
