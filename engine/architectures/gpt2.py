"""GPT-2: LayerNorms, learned positions, fused QKV, GELU (tanh form), biases, usually a tied head."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from engine.convert.huggingface.names import GELU_TANH, below
from engine.convert.legacy.names import EPSILON, Legacy
from engine.nn.binder import Binder
from engine.nn.decoder import Decoder, Layer
from engine.nn.hparams import HParams, Keys
from engine.nn.layers import Attention, FeedForward


class GPT2(Decoder):
    name = "gpt2"
    norms = "layer"
    huggingface: ClassVar[tuple[str, ...]] = ("GPT2LMHeadModel",)
    tied_by_default = True
    names: ClassVar[dict[str, str]] = {
        "transformer.wte": "token_embd",
        "transformer.wpe": "position_embd",
        "transformer.ln_f": "output_norm",
        "lm_head": "output",
    } | below(
        "transformer.h",
        {
            "ln_1": "attn_norm",
            "attn.c_attn": "attn_qkv",
            "attn.c_proj": "attn_output",
            "ln_2": "ffn_norm",
            "mlp.c_fc": "ffn_up",
            "mlp.c_proj": "ffn_down",
        },
    )
    names |= {name.removeprefix("transformer."): target for name, target in names.items()}

    settings: ClassVar[dict[str, tuple[Any, ...]]] = {
        "activation_function": GELU_TANH,
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
    }

    legacy: ClassVar[Legacy | None] = Legacy(
        fields=("n_vocab", "context_length", "embedding_length", "attention.head_count", "block_count"),
        defaults={EPSILON: 1e-5},
        counts_again=True,
    )

    @classmethod
    def convert_tensor(cls, name: str, x: Any, config: dict[str, Any]) -> Iterable[tuple[str, Any]]:
        # Conv1D keeps its matrices the other way round.
        return ((name, x.T if x.ndim == 2 and name.startswith("blk.") else x),)

    @classmethod
    def hparams(cls, gguf: Any) -> HParams:
        keys = Keys(gguf, cls.name)
        return keys.hparams(rope=None, eps="layer", max_positions=keys.integer("context_length"))

    def layer(self, binder: Binder, i: int) -> Layer:
        return Layer(
            attn_norm=self.block_norm(binder, i, "attn_norm"),
            attention=Attention(binder, self.hp, i),
            ffn_norm=self.block_norm(binder, i, "ffn_norm"),
            ffn=FeedForward(binder, self.hp, i, activation="gelu", gate=None),
        )


ARCHITECTURE = GPT2
