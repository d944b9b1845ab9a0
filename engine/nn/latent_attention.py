"""Attention of one layer on latents: DeepSeek-V2's multi-head latent attention, absorbed."""

from __future__ import annotations

from engine.ggml.tensor import Tensor
from engine.graph.forward_context import ForwardContext
from engine.hparams import HParams
from engine.nn.attention import split_heads
from engine.nn.binder import Binder

EPS = 1e-6  # of the norms of latents, whatever the model's own


class LatentAttention:
    """[n_embd, rows] -> [n_embd, rows] (arXiv 2405.04434, section 2.1). Sizes: `engine.hparams.Latent`.

    Each head's keys and values are products of one latent, which is what a cell holds. The matrix of the keys
    is absorbed into Q and that of the values into the output, so all heads attend to the latents themselves.
    """

    def __init__(self, binder: Binder, hp: HParams, layer: int) -> None:
        assert hp.latent is not None
        assert hp.rope is not None
        latent, rope, rank, n_head = hp.latent, hp.rope, hp.head_dim_v, hp.n_head[layer]
        self.hp, self.layer, self.rope, self.n_head = hp, layer, rope, n_head
        self.rank, self.head_dim_k = rank, latent.head_dim_k
        self.n_plain = latent.head_dim_k - rope.n_dims  # the part of a head's Q and K that is not rotated
        blk, n_q = f"blk.{layer}", n_head * latent.head_dim_k
        self.q_norm = None
        if latent.q_rank:
            self.q_a = binder.linear(f"{blk}.attn_q_a", hp.n_embd, latent.q_rank, layer)
            self.q_norm = binder.rms_norm(f"{blk}.attn_q_a_norm", (latent.q_rank,), EPS, layer)
        self.q = binder.linear(
            f"{blk}.attn_q{'_b' if latent.q_rank else ''}", latent.q_rank or hp.n_embd, n_q, layer
        )
        self.kv = binder.linear(f"{blk}.attn_kv_a_mqa", hp.n_embd, rank + rope.n_dims, layer)
        self.kv_norm = binder.rms_norm(f"{blk}.attn_kv_a_norm", (rank,), EPS, layer)
        of_keys, of_values = (self.n_plain, rank, n_head), (rank, latent.head_dim_v, n_head)
        self.k_b = binder.tensor(f"{blk}.attn_k_b.weight", of_keys, "mul_mat_heads", layer)
        self.v_b = binder.tensor(f"{blk}.attn_v_b.weight", of_values, "mul_mat_heads", layer)
        self.out = binder.linear(f"{blk}.attn_output", n_head * latent.head_dim_v, hp.n_embd, layer)

    def queries(self, forward: ForwardContext, x: Tensor) -> Tensor:
        """-> [rank + rotated, n_head, rows]"""
        ctx, rows = forward.ctx, x.shape[1]
        if self.q_norm is not None:
            x = self.q_norm(ctx, self.q_a(forward, x))
        q = split_heads(ctx, self.q(forward, x), self.head_dim_k, self.n_head)
        strides = q.strides[1:3]
        plain = ctx.view(q, (self.n_plain, self.n_head, rows), strides)
        rotated = ctx.view(q, (self.rope.n_dims, self.n_head, rows), strides, 4 * self.n_plain)
        absorbed = ctx.mul_mat(self.k_b, ctx.permute(plain, 0, 2, 1))  # [rank, rows, n_head]
        return ctx.concat(ctx.permute(absorbed, 0, 2, 1), forward.rotate(rotated, self.rope, None))

    def keys(self, forward: ForwardContext, x: Tensor) -> Tensor:
        """-> [rank + rotated, 1, rows]"""
        ctx, rows = forward.ctx, x.shape[1]
        kv = self.kv(forward, x)
        stride = kv.strides[1]
        latent = self.kv_norm(ctx, ctx.view(kv, (self.rank, rows), (stride,)))
        rotated = ctx.view(kv, (self.rope.n_dims, 1, rows), (stride, stride), 4 * self.rank)
        rotated = forward.rotate(rotated, self.rope, None)
        return ctx.concat(ctx.reshape(latent, self.rank, 1, rows), rotated)

    def __call__(self, forward: ForwardContext, x: Tensor) -> Tensor | None:
        """None for the last layer of a batch without outputs, where only the cache needs to be filled."""
        ctx, layer, rows = forward.ctx, self.layer, x.shape[1]
        forward.store(layer, self.keys(forward, x))
        if layer == self.hp.n_layer - 1 and forward.shape.n_outputs == 0:
            return None
        q = self.queries(forward, x)
        if self.hp.has_temperature(layer):
            q = ctx.mul(q, forward.temperatures())
        attended = forward.attend(layer, q)
        by_head = ctx.permute(ctx.reshape(attended, self.rank, self.n_head, rows), 0, 2, 1)
        values = ctx.permute(ctx.mul_mat(self.v_b, by_head), 0, 2, 1)  # [head_dim_v, n_head, rows]
        return self.out(forward, ctx.cont_2d(values, values.shape[0] * self.n_head, rows))
