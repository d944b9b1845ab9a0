"""Hugging Face folders of Nemotron 3 (Nano and Super)."""

from typing import Any

from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Config
from engine.convert.huggingface.names import below
from engine.convert.huggingface.nemotron_h import NemotronHConverter, pattern_of


class NemotronHMoEConverter(NemotronHConverter):
    architecture = "nemotron_h_moe"
    kinds = "M*-E"
    ignored = ("mtp.",)
    tensor_names = NemotronHConverter.tensor_names | below(
        "backbone.layers",
        {
            "mixer.gate": "ffn_gate_inp",
            "mixer.gate.e_score_correction_bias": "exp_probs_b.bias",
            "mixer.experts.{e}.up_proj": "ffn_up_exps",
            "mixer.experts.{e}.down_proj": "ffn_down_exps",
            "mixer.shared_experts.up_proj": "ffn_up_shexp",
            "mixer.shared_experts.down_proj": "ffn_down_shexp",
            "mixer.fc1_latent_proj": "ffn_latent_down",
            "mixer.fc2_latent_proj": "ffn_latent_up",
        },
    )

    @classmethod
    def converts(cls, config: Config) -> bool:
        return "E" in pattern_of(config)

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        width, shared = (int(config[f"moe_{name}intermediate_size"]) for name in ("", "shared_expert_"))
        converted = super().convert_keys(config) | keys.routing(config, "sigmoid")
        dense = converted["feed_forward_length"]
        pattern = pattern_of(config)
        converted |= {
            "feed_forward_length": [
                width if kind == "E" else n for kind, n in zip(pattern, dense, strict=True)
            ],
            "expert_used_count": int(config["num_experts_per_tok"]),
            "expert_feed_forward_length": width,
            "expert_shared_feed_forward_length": shared,
        }
        if config.get("moe_latent_size"):
            converted["moe_latent_size"] = int(config["moe_latent_size"])
        return converted
