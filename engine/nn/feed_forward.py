"""The feed-forward network of one layer."""

from __future__ import annotations

from typing import Literal

from engine.ggml.tensor import Tensor
from engine.graph.forward_context import ForwardContext
from engine.hparams import HParams
from engine.nn.binder import Binder


class FeedForward:
    """[n_embd, rows] -> [n_embd, rows].

    gate "split": down(act(gate x) * up x) (Shazeer 2020, arXiv 2002.05202); "fused": the same, with the rows
    of gate and up in one matrix; "fused_last": of up and gate; None: down(act(up x)). suffix, n_ff: of a
    shared expert.
    """

    def __init__(
        self,
        binder: Binder,
        hp: HParams,
        layer: int,
        *,
        activation: str = "silu",
        gate: Literal["split", "fused", "fused_last"] | None = "split",
        suffix: str = "",
        n_ff: int = 0,
    ) -> None:
        # Keywords are what architectures differ in; each is used by a few of them.
        blk, n_ff = f"blk.{layer}", n_ff or hp.n_ff[layer]
        self.layer, self.activation, self.n_ff = layer, activation, n_ff
        self.fused, self.gate_last = gate in ("fused", "fused_last"), gate == "fused_last"
        n_up = 2 * n_ff if self.fused else n_ff
        self.gate = None
        if gate == "split":
            self.gate = binder.linear(f"{blk}.ffn_gate{suffix}", hp.n_embd, n_ff, layer)
        self.up = binder.linear(f"{blk}.ffn_up{suffix}", hp.n_embd, n_up, layer)
        self.down = binder.linear(f"{blk}.ffn_down{suffix}", n_ff, hp.n_embd, layer)

    def __call__(self, forward: ForwardContext, x: Tensor) -> Tensor:
        ctx = forward.ctx
        if self.gate is not None:
            hidden = forward.activate(self.layer, self.activation, self.gate(forward, x), self.up(forward, x))
        elif self.fused:
            both = self.up(forward, x)
            rows, stride = both.shape[1], both.strides[1]
            halves = [ctx.view(both, (self.n_ff, rows), (stride,), 4 * i * self.n_ff) for i in range(2)]
            gate, up = reversed(halves) if self.gate_last else halves
            hidden = forward.activate(self.layer, self.activation, gate, up)
        else:
            hidden = forward.activate(self.layer, self.activation, self.up(forward, x))
        return self.down(forward, hidden)
