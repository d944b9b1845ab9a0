"""Nomic BERT: as BERT, with rotated halves, a gated SiLU, no biases (Nussbaum 2024, arXiv 2402.01613)."""

from __future__ import annotations

from typing import Any

from engine.convert.huggingface.names import below
from engine.nn.encoder import Encoder
from engine.nn.hparams import HParams, Keys


class NomicBert(Encoder):
    name = "nomic-bert"
    activation = "silu"
    gate = "split"
    huggingface = ("NomicBertModel",)
    names = {
        "embeddings.word_embeddings": "token_embd",
        "embeddings.token_type_embeddings": "token_types",
        "emb_ln": "token_embd_norm",
    } | below(
        "encoder.layers",
        {
            "attn.Wqkv": "attn_qkv",
            "attn.out_proj": "attn_output",
            "norm1": "attn_output_norm",
            "mlp.fc11": "ffn_up",
            "mlp.fc12": "ffn_gate",
            "mlp.fc2": "ffn_down",
            "norm2": "layer_output_norm",
        },
    )

    names |= {name.replace("encoder.layers", "bert.encoder.layers"): target for name, target in names.items()}

    settings = {  # noqa: RUF012
        "activation_function": ("swiglu",),
        "hidden_act": ("silu",),
        "causal": (False,),
        "prenorm": (False,),
        "qkv_proj_bias": (False,),
        "mlp_fc1_bias": (False,),
        "mlp_fc2_bias": (False,),
        "rotary_emb_fraction": (1.0,),
        "rotary_emb_interleaved": (False,),
        "rotary_emb_scale_base": (),
        "moe_every_n_layers": (0,),
    }

    @classmethod
    def convert_keys(cls, config: dict[str, Any]) -> dict[str, Any]:
        from engine.convert import keys

        found = keys.common({"rope_theta": config.get("rotary_emb_base"), **config})
        # Published with 8192 positions, which are those of an extension by "dynamic NTK".
        trained = config.get("max_trained_positions")
        if trained and "n_positions" in config:
            found["context_length"] = min(int(trained), found["context_length"])
        return found | {"attention.causal": False}

    @classmethod
    def hparams(cls, gguf: Any) -> HParams:
        return Keys(gguf, cls.name).encoder(rope="neox")


ARCHITECTURE = NomicBert
