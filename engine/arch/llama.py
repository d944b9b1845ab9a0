"""LLaMA 1-3, Mistral, Mixtral and all that convert to them: RMS norms before each half, rotary, SwiGLU.

Q and K come permuted for rotation of adjacent pairs. Optional: biases, a tied head, rope scaling,
experts, a sliding window.
"""

from __future__ import annotations

from typing import Any

from engine.arch.blocks import Attention, FeedForward, MixtureOfExperts
from engine.arch.slots import Binder
from engine.arch.spec import Architecture, HParams, Keys


class Layer:
    """x + attention(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(self, binder: Binder, hp: HParams, i: int, rope_factors: Any) -> None:
        self.attn_norm = binder.rms_norm(f"blk.{i}.attn_norm", hp.n_embd, hp.eps, i)
        self.attention = Attention(binder, hp, i, rope_factors)
        self.ffn_norm = binder.rms_norm(f"blk.{i}.ffn_norm", hp.n_embd, hp.eps, i)
        self.ffn = (MixtureOfExperts if hp.n_expert else FeedForward)(binder, hp, i)

    def __call__(self, step: Any, x: Any, last: bool) -> Any | None:
        ctx = step.ctx
        attended = self.attention(step, self.attn_norm(ctx, x))
        if attended is None:
            return None
        if last:
            attended, x = step.outputs_of(attended), step.outputs_of(x)
        x = ctx.add(attended, x)
        return ctx.add(self.ffn(step, self.ffn_norm(ctx, x)), x)


class Llama(Architecture):
    name = "llama"

    @classmethod
    def hparams(cls, gguf: Any) -> HParams:
        keys = Keys(gguf, cls.name)
        n_layer, n_embd = keys.integer("block_count"), keys.integer("embedding_length")
        n_head = keys.per_layer("attention.head_count", n_layer)
        head_dim = keys.integer("attention.key_length", n_embd // max(n_head[0], 1))
        if keys.number("attention.clamp_kqv", 0.0):
            keys.refuse("attention.clamp_kqv", keys.number("attention.clamp_kqv"), "none for llama")
        return HParams(
            n_layer=n_layer,
            n_embd=n_embd,
            n_vocab=gguf.tensors["token_embd.weight"].shape[1] if "token_embd.weight" in gguf.tensors else 0,
            n_ctx_train=keys.integer("context_length"),
            n_ff=keys.per_layer("feed_forward_length", n_layer),
            n_head=n_head,
            n_head_kv=keys.per_layer("attention.head_count_kv", n_layer, n_head),
            head_dim_k=head_dim,
            head_dim_v=keys.integer("attention.value_length", head_dim),
            eps=keys.number("attention.layer_norm_rms_epsilon"),
            rope=keys.rope("norm", keys.integer("rope.dimension_count", head_dim)),
            window=keys.integer("attention.sliding_window", 0),
            n_expert=keys.integer("expert_count", 0),
            n_expert_used=keys.integer("expert_used_count", 0),
            attention_scale=keys.number("attention.scale", 0.0),
        )

    def bind(self, binder: Binder) -> None:
        hp = self.hp
        self.embedding = binder.tensor("token_embd.weight", (hp.n_embd, hp.n_vocab), "get_rows", -1)
        factors = None
        if hp.rope is not None:
            # Written once by converters; the same factors serve every layer.
            factors = binder.tensor("rope_freqs.weight", (hp.rope.n_dims // 2,), "rope", 0, optional=True)
        self.layers = [Layer(binder, hp, i, factors) for i in range(hp.n_layer)]
        self.output_norm = binder.rms_norm("output_norm", hp.n_embd, hp.eps, hp.n_layer)
        self.output = binder.linear("output", hp.n_embd, hp.n_vocab, hp.n_layer, instead="token_embd")

    def build(self, step: Any) -> Any | None:
        ctx = step.ctx
        x = ctx.get_rows(self.embedding, step.tokens)
        for i, layer in enumerate(self.layers):
            x = layer(step, x, last=i == len(self.layers) - 1)
        return None if x is None else self.output(ctx, self.output_norm(ctx, x))


ARCHITECTURE = Llama
