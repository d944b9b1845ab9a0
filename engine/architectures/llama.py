"""LLaMA 1-3, Mistral, Mixtral and all that convert to them: RMS norms before each half, rotary, SwiGLU.

Q and K come permuted for rotation of adjacent pairs. Optional: biases, a tied head, rope scaling,
experts, a sliding window.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from engine.convert.huggingface.names import STANDARD, below, experts, interleave
from engine.convert.legacy.names import Legacy
from engine.nn.binder import Binder
from engine.nn.decoder import Decoder, Layer
from engine.nn.hparams import HParams, Keys
from engine.nn.layers import Attention, FeedForward
from engine.nn.moe import MixtureOfExperts


class Llama(Decoder):
    name = "llama"
    huggingface: ClassVar[tuple[str, ...]] = (
        *("LlamaForCausalLM", "LLaMAForCausalLM", "MistralForCausalLM", "MixtralForCausalLM"),
    )
    names: ClassVar[dict[str, str]] = STANDARD | experts("block_sparse_moe", "w1", "w3", "w2", "gate")

    legacy = Legacy(
        fields=(
            *("n_vocab", "embedding_length", "n_mult", "attention.head_count", "block_count"),
            "rope.dimension_count",
        ),
        # The same guess as others make: 1e-6 (LLaMA) or 1e-5 (LLaMA 2) was never written down.
        defaults={"context_length": 2048, "attention.layer_norm_rms_epsilon": 5e-6},
        names={"tok_embeddings": "token_embd", "norm": "output_norm", "output": "output"}
        | below(
            "layers",
            {
                "attention_norm": "attn_norm",
                "attention.wq": "attn_q",
                "attention.wk": "attn_k",
                "attention.wv": "attn_v",
                "attention.wo": "attn_output",
                "ffn_norm": "ffn_norm",
                "feed_forward.w1": "ffn_gate",
                "feed_forward.w2": "ffn_down",
                "feed_forward.w3": "ffn_up",
            },
        ),
        pre=None,
    )

    @classmethod
    def convert_tensor(cls, name: str, x: Any, config: dict[str, Any]) -> Iterable[tuple[str, Any]]:
        part = name.split(".")[-2]
        if part == "attn_q":
            x = interleave(x, config["num_attention_heads"])
        elif part == "attn_k":
            x = interleave(x, config.get("num_key_value_heads") or config["num_attention_heads"])
        return ((name, x),)

    @classmethod
    def convert_keys(cls, config: dict[str, Any]) -> dict[str, Any]:
        from engine.convert import keys

        found = keys.common(config)
        if config.get("sliding_window"):
            found["attention.sliding_window"] = int(config["sliding_window"])
        return found

    @classmethod
    def extra_tensors(cls, config: dict[str, Any]) -> dict[str, Any]:
        import numpy as np

        from engine.convert import keys

        if keys.rope_parameters(config).get("rope_type") != "llama3":
            return {}
        return {"rope_freqs.weight": np.array(keys.llama3_factors(config), np.float32)}

    @classmethod
    def hparams(cls, gguf: Any) -> HParams:
        keys = Keys(gguf, cls.name)
        return keys.hparams(rope="norm", windows=keys.windows(keys.integer("block_count")))

    def layer(self, binder: Binder, i: int) -> Layer:
        hp = self.hp
        return Layer(
            attn_norm=self.block_norm(binder, i, "attn_norm"),
            attention=Attention(binder, hp, i, rope_factors=self.factors),
            ffn_norm=self.block_norm(binder, i, "ffn_norm"),
            ffn=(MixtureOfExperts if hp.n_expert else FeedForward)(binder, hp, i),
        )


ARCHITECTURE = Llama
