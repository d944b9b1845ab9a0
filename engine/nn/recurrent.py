"""Blocks that carry a state from token to token: short convolutions, Mamba, the gated delta net.

Their matrices are on the layer's device; `engine.graph.ops.recurrence` computes the states on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.ggml.tensor import Tensor
from engine.graph.forward_context import ForwardContext
from engine.hparams import HParams, Recurrence
from engine.nn.binder import Binder


def recurrence_of(hp: HParams) -> Recurrence:
    assert hp.recurrence is not None
    return hp.recurrence


def columns(forward: ForwardContext, x: Tensor, begin: int, n: int) -> Tensor:
    """Elements begin … begin + n - 1 of each row of x [m, rows]: a view [n, rows]."""
    return forward.ctx.view(x, (n, x.shape[1]), (x.strides[1],), 4 * begin)


def is_done(forward: ForwardContext, layer: int) -> bool:
    """Whether nothing reads the output of this layer: the last layer of a batch without outputs."""
    return layer == forward.hp.n_layer - 1 and forward.shape.n_outputs == 0


class SideBySide:
    """The sum of two blocks that read the same input: [n_embd, rows] -> the same."""

    def __init__(self, *blocks: Callable[[ForwardContext, Tensor], Tensor | None]) -> None:
        self.blocks = blocks

    def __call__(self, forward: ForwardContext, x: Tensor) -> Tensor | None:
        """None where nothing reads it."""
        first, second = (block(forward, x) for block in self.blocks)
        return None if first is None or second is None else forward.ctx.add(first, second)


class Stateless:
    """A block that need not be computed if nothing reads its output."""

    def __init__(self, block: Callable[[ForwardContext, Tensor], Tensor], layer: int) -> None:
        self.block, self.layer = block, layer

    def __call__(self, forward: ForwardContext, x: Tensor) -> Tensor | None:
        """[n_embd, rows] -> the same; None where nothing reads it."""
        return None if is_done(forward, self.layer) else self.block(forward, x)


class Convolution:
    """Causal, of each channel by itself: x [channels, rows] -> [channels, rows]."""

    def __init__(self, binder: Binder, layer: int, name: str, shape: tuple[int, int], *, silu: bool) -> None:
        """shape: (kernel, channels)."""
        self.layer, self.silu = layer, silu
        self.weight = binder.tensor(f"blk.{layer}.{name}.weight", shape, "host", layer)
        self.bias = binder.optional(f"blk.{layer}.{name}.bias", shape[1:], "host", layer)

    def __call__(self, forward: ForwardContext, x: Tensor) -> Tensor:
        states = forward.execution.states
        y = states.convolution(forward.ctx, self.layer, x, self.weight, self.bias, self.silu)
        forward.graph.add(y)  # also where nothing reads it, since it writes the state
        return y


class ShortConvolution:
    """LFM2's gated convolution: out(c * convolution(b * x)), where b, c and x are parts of one product."""

    def __init__(self, binder: Binder, hp: HParams, layer: int) -> None:
        blk, n = f"blk.{layer}.shortconv", hp.n_embd
        self.layer, self.n = layer, n
        self.inner = binder.linear(f"{blk}.in_proj", n, 3 * n, layer)
        kernel = recurrence_of(hp).kernel
        self.convolution = Convolution(binder, layer, "shortconv.conv", (kernel, n), silu=False)
        self.out = binder.linear(f"{blk}.out_proj", n, n, layer)

    def __call__(self, forward: ForwardContext, x: Tensor) -> Tensor | None:
        """[n_embd, rows] -> the same; None where nothing reads it."""
        ctx, n = forward.ctx, self.n
        bcx = self.inner(forward, x)
        b, c, x = (columns(forward, bcx, i * n, n) for i in range(3))
        y = self.convolution(forward, ctx.mul(b, x))
        return None if is_done(forward, self.layer) else self.out(forward, ctx.mul(c, y))


class Mamba2:
    """The mixer of Mamba 2 (Dao 2024, arXiv 2405.21060): [n_embd, rows] -> the same.

    One product has z, x, B, C and dt. x, B and C go through a convolution, then the scan runs; its output is
    multiplied by silu(z) and normed by groups, where the file has the norm.
    """

    def __init__(self, binder: Binder, hp: HParams, layer: int) -> None:
        blk, shape = f"blk.{layer}", recurrence_of(hp)
        self.layer, self.shape, self.eps = layer, shape, hp.eps
        n_inner, n_head = shape.n_inner, shape.n_head
        self.inner = binder.linear(f"{blk}.ssm_in", hp.n_embd, n_inner + shape.channels + n_head, layer)
        conv = (shape.kernel, shape.channels)
        self.convolution = Convolution(binder, layer, "ssm_conv1d", conv, silu=True)
        self.dt_bias = binder.tensor(f"{blk}.ssm_dt.bias", (n_head,), "host", layer)
        self.a = binder.tensor(f"{blk}.ssm_a", (1, n_head), "host", layer)
        self.d = binder.tensor(f"{blk}.ssm_d", (1, n_head), "host", layer)
        groups = (n_inner // shape.n_group, shape.n_group)
        self.norm = binder.optional(f"{blk}.ssm_norm.weight", groups, "mul", layer)
        self.out = binder.linear(f"{blk}.ssm_out", n_inner, hp.n_embd, layer)

    def __call__(self, forward: ForwardContext, x: Tensor) -> Tensor | None:
        """None where nothing reads it."""
        ctx, shape, rows = forward.ctx, self.shape, x.shape[1]
        n_inner, n_keys = shape.n_inner, shape.n_group * shape.d_state
        zxbcdt = self.project(forward, x)
        z = columns(forward, zxbcdt, 0, n_inner)
        dt = columns(forward, zxbcdt, n_inner + shape.channels, shape.n_head)
        xbc = self.convolution(forward, columns(forward, zxbcdt, n_inner, shape.channels))
        parts = [(0, n_inner), (n_inner, n_keys), (n_inner + n_keys, n_keys)]
        x, b, c = (columns(forward, xbc, begin, n) for begin, n in parts)
        after = (shape.kernel - 1) * shape.channels
        inputs = [x, dt, self.a, b, c, self.d]
        y = forward.execution.states.scan(ctx, self.layer, after, shape.d_state, inputs, self.dt_bias)
        forward.graph.add(y)  # also where nothing reads it, since it writes the state
        if is_done(forward, self.layer):
            return None
        y = forward.activate(self.layer, "silu", ctx.cont(z), y)
        if self.norm is not None:
            y = ctx.reshape(y, n_inner // shape.n_group, shape.n_group, rows)
            y = ctx.reshape(ctx.mul(ctx.rms_norm(y, self.eps), self.norm), n_inner, rows)
        return self.out(forward, y)

    def project(self, forward: ForwardContext, x: Tensor) -> Tensor:
        """z, x, B, C and dt: [n, rows]"""
        return self.inner(forward, x)


class Mamba:
    """The mixer of Mamba (Gu 2023, arXiv 2312.00752), where B, C and dt depend on x after the convolution.

    These are normed in Falcon Mamba, and with weights in Jamba.
    """

    def __init__(self, binder: Binder, hp: HParams, layer: int) -> None:
        blk, shape = f"blk.{layer}", recurrence_of(hp)
        self.layer, self.shape, self.eps = layer, shape, hp.eps
        n_inner, n_state, dt_rank = shape.n_inner, shape.d_state, shape.dt_rank
        self.inner = binder.linear(f"{blk}.ssm_in", hp.n_embd, 2 * n_inner, layer)
        conv = (shape.kernel, n_inner)
        self.convolution = Convolution(binder, layer, "ssm_conv1d", conv, silu=True)
        self.x = binder.linear(f"{blk}.ssm_x", n_inner, dt_rank + 2 * n_state, layer)
        sizes = {"dt": dt_rank, "b": n_state, "c": n_state}
        weights = [
            binder.optional(f"{blk}.ssm_{part}_norm.weight", (n,), "mul", layer) for part, n in sizes.items()
        ]
        self.norms = weights if shape.normed or binder.has(f"{blk}.ssm_dt_norm.weight") else None
        # Its bias is added to the product, before the scan.
        self.dt = binder.linear(f"{blk}.ssm_dt", dt_rank, n_inner, layer)
        self.a = binder.tensor(f"{blk}.ssm_a", (n_state, n_inner), "host", layer)
        self.d = binder.tensor(f"{blk}.ssm_d", (n_inner,), "host", layer)
        self.out = binder.linear(f"{blk}.ssm_out", n_inner, hp.n_embd, layer)

    def __call__(self, forward: ForwardContext, x: Tensor) -> Tensor | None:
        """[n_embd, rows] -> the same; None where nothing reads it."""
        ctx, shape, rank = forward.ctx, self.shape, self.shape.dt_rank
        n_inner, n_state = shape.n_inner, shape.d_state
        xz = self.inner(forward, x)
        z = columns(forward, xz, n_inner, n_inner)
        x = self.convolution(forward, columns(forward, xz, 0, n_inner))
        joint = self.x(forward, x)
        sizes = [(0, rank), (rank, n_state), (rank + n_state, n_state)]
        parts = [columns(forward, joint, begin, n) for begin, n in sizes]
        if self.norms is not None:
            parts = [ctx.rms_norm(part, self.eps) for part in parts]
            parts = [
                part if weight is None else ctx.mul(part, weight)
                for part, weight in zip(parts, self.norms, strict=True)
            ]
        dt, b, c = parts
        dt = self.dt(forward, dt if dt.contiguous else ctx.cont(dt))
        after = (shape.kernel - 1) * shape.channels
        inputs = [x, dt, self.a, b, c, self.d]
        y = forward.execution.states.scan(ctx, self.layer, after, n_state, inputs)
        forward.graph.add(y)
        if is_done(forward, self.layer):
            return None
        return self.out(forward, forward.activate(self.layer, "silu", ctx.cont(z), y))


class GatedDeltaNet:
    """The linear attention of Qwen3-Next and Qwen 3.5 (Yang 2024, arXiv 2412.06464).

    q, k and v of one product go through a convolution, then the gated delta rule runs; its output is normed
    per head and multiplied by silu(z). The file has the products for beta and alpha in one matrix
    (`ssm_ba`, by groups of heads that share a key, which then are neighbours) or in two.
    """

    def __init__(self, binder: Binder, hp: HParams, layer: int) -> None:
        blk, shape = f"blk.{layer}", recurrence_of(hp)
        self.layer, self.shape, self.eps = layer, shape, hp.eps
        n, n_head = hp.n_embd, shape.n_head
        self.qkv = binder.linear(f"{blk}.attn_qkv", n, shape.channels, layer)
        self.z = binder.linear(f"{blk}.attn_gate", n, shape.n_inner, layer)
        conv = (shape.kernel, shape.channels)
        self.convolution = Convolution(binder, layer, "ssm_conv1d", conv, silu=True)
        self.joint = binder.has(f"{blk}.ssm_ba.weight")
        if self.joint:
            self.ba = binder.linear(f"{blk}.ssm_ba", n, 2 * n_head, layer)
        else:
            self.beta = binder.linear(f"{blk}.ssm_beta", n, n_head, layer)
            self.alpha = binder.linear(f"{blk}.ssm_alpha", n, n_head, layer)
        self.bias = binder.tensor(f"{blk}.ssm_dt.bias", (n_head,), "host", layer)
        self.a = binder.tensor(f"{blk}.ssm_a", (n_head,), "host", layer)
        self.norm = binder.tensor(f"{blk}.ssm_norm.weight", (shape.head_dim,), "mul", layer)
        self.out = binder.linear(f"{blk}.ssm_out", shape.n_inner, n, layer)

    def gates(self, forward: ForwardContext, x: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and beta: [heads, rows]"""
        if not self.joint:
            return self.alpha(forward, x), self.beta(forward, x)
        ctx, n_head, rows = forward.ctx, self.shape.n_head, x.shape[1]
        ba = self.ba(forward, x)
        each = n_head // self.shape.n_group  # heads that share a key
        halves = [
            ctx.view(ba, (each, self.shape.n_group, rows), (8 * each, ba.strides[1]), 4 * begin)
            for begin in (0, each)
        ]
        beta, alpha = (ctx.cont_2d(half, n_head, rows) for half in halves)
        return alpha, beta

    def __call__(self, forward: ForwardContext, x: Tensor) -> Tensor | None:
        """[n_embd, rows] -> the same; None where nothing reads it."""
        ctx, shape, rows = forward.ctx, self.shape, x.shape[1]
        qkv = self.convolution(forward, self.qkv(forward, x))
        alpha, beta = self.gates(forward, x)
        y = forward.execution.states.delta(
            ctx,
            self.layer,
            (shape.kernel - 1) * shape.channels,
            (shape.d_state, shape.n_group),
            [qkv, alpha, beta, self.a, self.bias],
            tiled=not self.joint,
        )
        forward.graph.add(y)
        if is_done(forward, self.layer):
            return None
        y = ctx.reshape(y, shape.head_dim, shape.n_head, rows)
        y = ctx.reshape(ctx.mul(ctx.rms_norm(y, self.eps), self.norm), shape.n_inner, rows)
        return self.out(forward, forward.activate(self.layer, "silu", self.z(forward, x), y))
