"""GPT-J: attention and feed-forward side by side on one norm, partial rotary in pairs, GELU (tanh form).

No public converter writes it to GGUF: docs/architectures.md defines the layout.
"""

from __future__ import annotations

from typing import Any, ClassVar

from engine.convert.huggingface.names import GELU_TANH, below
from engine.convert.legacy.names import EPSILON, Legacy
from engine.nn.binder import Binder
from engine.nn.decoder import Decoder, Layer
from engine.nn.hparams import HParams, Keys
from engine.nn.layers import Attention, FeedForward


class GPTJ(Decoder):
    name = "gptj"
    norms = "layer"
    huggingface: ClassVar[tuple[str, ...]] = ("GPTJForCausalLM",)
    names: ClassVar[dict[str, str]] = {
        "transformer.wte": "token_embd",
        "transformer.ln_f": "output_norm",
        "lm_head": "output",
    } | below(
        "transformer.h",
        {
            "ln_1": "attn_norm",
            "attn.q_proj": "attn_q",
            "attn.k_proj": "attn_k",
            "attn.v_proj": "attn_v",
            "attn.out_proj": "attn_output",
            "mlp.fc_in": "ffn_up",
            "mlp.fc_out": "ffn_down",
        },
    )

    settings: ClassVar[dict[str, tuple[Any, ...]]] = {"activation_function": GELU_TANH}

    legacy = Legacy(
        fields=(
            *("n_vocab", "context_length", "embedding_length", "attention.head_count", "block_count"),
            "rope.dimension_count",
        ),
        defaults={EPSILON: 1e-5},
        counts_again=True,
    )

    @classmethod
    def convert_keys(cls, config: dict[str, Any]) -> dict[str, Any]:
        from engine.convert import keys

        head_dim = config["n_embd"] // config["n_head"]
        return keys.common(config) | {"rope.dimension_count": int(config.get("rotary_dim") or head_dim)}

    @classmethod
    def hparams(cls, gguf: Any) -> HParams:
        return Keys(gguf, cls.name).hparams(rope="norm", eps="layer")

    def layer(self, binder: Binder, i: int) -> Layer:
        return Layer(
            parallel=True,
            attn_norm=self.block_norm(binder, i, "attn_norm"),
            attention=Attention(binder, self.hp, i),
            ffn=FeedForward(binder, self.hp, i, activation="gelu", gate=None),
        )


ARCHITECTURE = GPTJ
