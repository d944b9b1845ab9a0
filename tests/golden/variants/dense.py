"""The decoders with attention only that came after 2024: SmolLM3, Granite, GLM-4, OLMo 3, Command-R7B …"""

from __future__ import annotations

from functools import partial
from typing import Any

import variant
from converter import Fix
from variant import BASE, Variant

SMALL: dict[str, Any] = {"hidden_size": 24, "intermediate_size": 24, "tie_word_embeddings": True}
make = partial(variant.make, hf=True, **SMALL)
YARN: dict[str, Any] = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 32}
LLAMA3: dict[str, Any] = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}

# Of Qwen VL: how many frequencies follow each of the three positions; a vision part as small as it can be.
SECTIONS: dict[str, Any] = {"mrope_section": [3, 3, 2]}
VISION: dict[str, Any] = {
    "depth": 1,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_heads": 1,
    "out_hidden_size": 24,
    "patch_size": 2,
    "temporal_patch_size": 1,
    "spatial_merge_size": 1,
}


def pictures(what: str, model: str, text: dict[str, Any], vision: dict[str, Any]) -> Variant:
    """The text part of a model that sees."""
    rope = {"rope_type": "default", "rope_theta": 10000.0, **SECTIONS}
    return Variant(
        what,
        model,
        {
            "text_config": BASE | SMALL | {"rope_parameters": rope} | text,
            "vision_config": vision,
            "tie_word_embeddings": True,
            "attn_implementation": "eager",
        },
        hf=True,
    )


def without(key: str) -> Fix:
    """Without a key that the converter writes, and that says nothing of this architecture."""

    def fix(keys: dict[str, Any], tensors: dict[str, Any]) -> None:
        del keys[key]

    return fix


def rounded_eps(model: Any) -> None:
    """xIELU's epsilon, a buffer, as the folder in bfloat16 has it."""
    for layer in model.model.layers:
        layer.mlp.act_fn.eps.data = layer.mlp.act_fn.eps.bfloat16().float()


VARIANTS = {
    "smollm3": make(
        "no rotation in the fourth layer", "SmolLM3ForCausalLM", num_hidden_layers=5, hidden_size=16
    ),
    "granite": make(
        "multipliers of embedding, attention, residual and logits",
        "GraniteForCausalLM",
        num_hidden_layers=3,
        hidden_size=16,
        tie_word_embeddings=False,
        embedding_multiplier=3.0,
        attention_multiplier=0.15,
        residual_multiplier=0.4,
        logits_scaling=3.0,
        gains={"o_proj.weight": 4.0, "down_proj.weight": 5.0},
    ),
    "ernie4_5": make(
        "adjacent pairs rotated, as in the checkpoint",
        "Ernie4_5ForCausalLM",
        head_dim=16,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
    ),
    "arcee": make(
        "a squared ReLU without a gate, YaRN",
        "ArceeForCausalLM",
        head_dim=12,
        intermediate_size=48,
        rope_parameters=YARN | {"rope_theta": 10000.0, "beta_fast": 32.0, "beta_slow": 1.0},
        gains={"down_proj.weight": 3.0},
    ),
    "seed-oss": make(
        "biases of Q, K, V, a norm by another name",
        "SeedOssForCausalLM",
        head_dim=16,
        attention_bias=True,
        attention_out_bias=False,
    ),
    "glm4": make(
        "norms before and behind, half of the head rotated in pairs, biases, gate and up in one",
        "Glm4ForCausalLM",
        head_dim=16,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
    ),
    "olmo3": make(
        "windows in three of four layers, YaRN in the fourth only",
        "Olmo3ForCausalLM",
        hidden_size=16,
        num_hidden_layers=4,
        sliding_window=32,
        rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            "full_attention": YARN | {"rope_theta": 10000.0, "beta_fast": 32.0, "beta_slow": 1.0},
        },
        tie_word_embeddings=False,
    ),
    "cohere2": make(
        "windows in three of four layers, which alone are rotated, parallel on one norm, scaled logits",
        "Cohere2ForCausalLM",
        hidden_size=16,
        num_hidden_layers=4,
        sliding_window=32,
        logit_scale=0.25,
        published={"rotary_pct": 1.0},
    ),
    "exaone4": make(
        "norms behind, Q and K normed per head, frequency factors",
        "Exaone4ForCausalLM",
        head_dim=12,
        sliding_window=None,
        layer_types=["full_attention"] * 2,
        rope_parameters=LLAMA3 | {"rope_theta": 10000.0},
    ),
    "exaone4-window": make(
        "windows in three of four layers, which alone are rotated",
        "Exaone4ForCausalLM",
        hf=False,
        hidden_size=16,
        num_hidden_layers=4,
        sliding_window=32,
    ),
    "hunyuan-dense": make(
        "Q and K normed after the rotation, whose base is scaled by alpha",
        "HunYuanDenseV1ForCausalLM",
        head_dim=12,
        max_position_embeddings=32768,
        rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "alpha": 1000.0, "factor": 1.0},
    ),
    "nemotron": make(
        "LayerNorms of one plus the weight, a squared ReLU without a gate, partial rotary",
        "NemotronForCausalLM",
        head_dim=12,
        intermediate_size=48,
        norm_eps=1e-5,
        fix=without("nemotron.attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
        tie_word_embeddings=False,
        gains={"down_proj.weight": 3.0},
    ),
    "chatglm": make(
        "half of the head rotated in pairs, biases of Q, K, V, gate and up in one",
        "GlmForCausalLM",
        head_dim=12,
        attention_bias=True,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
        published={"seq_length": 256},
    ),
    "qwen3vl": pictures(
        "three sections of positions, which are the same in text",
        "Qwen3VLForConditionalGeneration",
        {"head_dim": 16},
        VISION | {"deepstack_visual_indexes": [0], "num_position_embeddings": 4},
    ),
    "qwen2vl": pictures(
        "three sections of positions, biases of Q, K, V",
        "Qwen2_5_VLForConditionalGeneration",
        {"hidden_size": 32, "intermediate_size": 16},
        VISION | {"fullatt_block_indexes": [0], "window_size": 4, "out_hidden_size": 32},
    ),
    "mistral3": make(
        "scores that grow with the position, YaRN without a factor of its own",
        "Ministral3ForCausalLM",
        head_dim=16,
        sliding_window=None,
        rope_parameters=YARN
        | {"rope_theta": 10000.0, "beta_fast": 32.0, "beta_slow": 1.0}
        | {"mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.8},
    ),
    "apertus": make(
        "xIELU with parameters of each layer, Q and K normed, frequency factors",
        "ApertusForCausalLM",
        intermediate_size=48,
        hidden_act="xielu",
        rope_parameters=LLAMA3 | {"rope_theta": 10000.0},
        tie_word_embeddings=False,
        extend=rounded_eps,
    ),
}
