"""GPT-NeoX, Pythia, Dolly, RedPajama, StableLM-alpha: two norms, both on x where the residual is parallel.

Partial rotary embedding, GELU, biases everywhere (Black 2022, arXiv 2204.06745).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from engine.convert.huggingface.names import below, by_parts
from engine.convert.legacy.names import EPSILON, Legacy
from engine.nn.binder import Binder
from engine.nn.decoder import Decoder, Layer
from engine.nn.hparams import HParams, Keys
from engine.nn.layers import Attention, FeedForward

LAYERS_OF_20B = 44  # its GELU is the form by tanh, and no key says so


class GPTNeoX(Decoder):
    name = "gptneox"
    norms = "layer"
    huggingface = ("GPTNeoXForCausalLM",)
    names = {
        "gpt_neox.embed_in": "token_embd",
        "gpt_neox.final_layer_norm": "output_norm",
        "embed_out": "output",
    } | below(
        "gpt_neox.layers",
        {
            "input_layernorm": "attn_norm",
            "attention.query_key_value": "attn_qkv",
            "attention.dense": "attn_output",
            "post_attention_layernorm": "ffn_norm",
            "mlp.dense_h_to_4h": "ffn_up",
            "mlp.dense_4h_to_h": "ffn_down",
        },
    )

    settings = {"hidden_act": ("gelu", "gelu_fast")}  # noqa: RUF012

    legacy = Legacy(
        fields=(
            *("n_vocab", "context_length", "embedding_length", "attention.head_count", "block_count"),
            *("rope.dimension_count", "use_parallel_residual"),
        ),
        defaults={EPSILON: 1e-5},
        qkv_by_head=True,
    )

    @classmethod
    def convert_keys(cls, config: dict[str, Any]) -> dict[str, Any]:
        from engine.convert import keys

        old = {"rope_theta": config.get("rotary_emb_base", 10000.0)}
        if "rotary_pct" in config:
            old["partial_rotary_factor"] = config["rotary_pct"]
        found = keys.common(old | config)
        usual = "gelu_fast" if found["block_count"] == LAYERS_OF_20B else "gelu"
        keys.only(config, "hidden_act", usual)
        return found | {"use_parallel_residual": bool(config.get("use_parallel_residual", True))}

    @classmethod
    def convert_tensor(cls, name: str, x: Any, config: dict[str, Any]) -> Iterable[tuple[str, Any]]:
        return ((name, by_parts(x, config["num_attention_heads"]) if ".attn_qkv." in name else x),)

    @classmethod
    def hparams(cls, gguf: Any) -> HParams:
        keys = Keys(gguf, cls.name)
        return keys.hparams(rope="neox", eps="layer", parallel=keys.flag("use_parallel_residual", True))

    def layer(self, binder: Binder, i: int) -> Layer:
        activation = "gelu" if self.hp.n_layer == LAYERS_OF_20B else "gelu_erf"
        return Layer(
            parallel=self.hp.parallel,
            attn_norm=self.block_norm(binder, i, "attn_norm"),
            attention=Attention(binder, self.hp, i),
            ffn_norm=self.block_norm(binder, i, "ffn_norm"),
            ffn=FeedForward(binder, self.hp, i, activation=activation, gate=None),
        )


ARCHITECTURE = GPTNeoX
