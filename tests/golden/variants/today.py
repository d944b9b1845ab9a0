"""Qwen 2 and 3, OLMo 2, StarCoder 2, Gemma 1 to 3, Command-R, StableLM 2, Phi 2 and 3, GPT-OSS."""

from __future__ import annotations

from typing import Any

import numpy as np
from variant import Variant, make


def experts(what: str, model: str, **config: Any) -> Variant:
    base = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
    return make(what, model, **(base | config))


def gemma3(what: str, **config: Any) -> Variant:
    parameters = {
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
    }
    base = {"num_hidden_layers": 6, "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 32}
    base |= {"rope_parameters": parameters, "tie_word_embeddings": True, "embedding_std": 0.06}
    return make(what, "Gemma3ForCausalLM", **(base | config))


def window_of(arch: str, window: int) -> Any:
    """The window, which the converter leaves out for this architecture."""

    def fix(keys: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
        keys[f"{arch}.attention.sliding_window"] = (window, 4, None)

    return fix


def scale_of(arch: str, scalar: float) -> Any:
    """`attention.scale`, where it is not that of the head's size: no converter writes it."""

    def fix(keys: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
        keys[f"{arch}.attention.scale"] = (scalar**-0.5, 6, None)

    return fix


VARIANTS = {
    "llama": make(
        "the folder of a LLaMA: permuted Q and K, frequency factors",
        "LlamaForCausalLM",
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 10000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
        hf=True,
    ),
    "mixtral": make(
        "the folder of a Mixtral: experts to be stacked",
        "MixtralForCausalLM",
        num_local_experts=4,
        num_experts_per_tok=2,
        sliding_window=None,
        hf=True,
    ),
    "qwen2": make("biases of Q, K, V", "Qwen2ForCausalLM", rms_norm_eps=1e-6, hf=True),
    "qwen2-tied": make("head shared with the embedding", "Qwen2ForCausalLM", tie_word_embeddings=True),
    "qwen2moe": experts(
        "a shared expert with a gate, weights not renormalised",
        "Qwen2MoeForCausalLM",
        shared_expert_intermediate_size=40,
        norm_topk_prob=False,
        hf=True,
    ),
    "qwen3": make(
        "Q and K normed per head, n_head * head_dim != n_embd", "Qwen3ForCausalLM", head_dim=24, hf=True
    ),
    "qwen3moe": experts(
        "weights renormalised", "Qwen3MoeForCausalLM", head_dim=16, norm_topk_prob=True, hf=True
    ),
    "olmo2": make("norms behind the blocks, Q and K normed whole", "Olmo2ForCausalLM", hf=True),
    "starcoder2": make(
        "biases, LayerNorm, a window",
        "Starcoder2ForCausalLM",
        sliding_window=48,
        use_bias=True,
        residual_dropout=0.0,
        embedding_dropout=0.0,
        tie_word_embeddings=True,
        hf=True,
        fix=window_of("starcoder2", 48),
    ),
    "gemma": make(
        "embedding scaled, GeGLU",
        "GemmaForCausalLM",
        head_dim=24,
        tie_word_embeddings=True,
        embedding_std=0.06,
        gains={"o_proj.weight": 5.0, "down_proj.weight": 6.0},
        hf=True,
    ),
    "gemma2": make(
        "soft-caps, a window in the first of two layers",
        "Gemma2ForCausalLM",
        head_dim=16,
        query_pre_attn_scalar=16,
        attn_logit_softcapping=2.0,
        final_logit_softcapping=1.0,
        embedding_std=0.05,
        sliding_window=32,
        tie_word_embeddings=True,
        hf=True,
    ),
    "gemma2-scale": make(
        "scores scaled by another number than the head's size",
        "Gemma2ForCausalLM",
        head_dim=16,
        query_pre_attn_scalar=40,
        attn_logit_softcapping=50.0,
        final_logit_softcapping=30.0,
        embedding_std=0.05,
        sliding_window=32,
        tie_word_embeddings=True,
        fix=scale_of("gemma2", 40),
    ),
    "gemma3": gemma3("five windows of six layers, two rotations", hf=True),
    "command-r": make(
        "parallel on one norm, scaled logits",
        "CohereForCausalLM",
        logit_scale=0.25,
        use_qk_norm=False,
        tie_word_embeddings=True,
        hf=True,
    ),
    "command-r-norms": make(
        "Q and K of each head normed by weights of its own (Command-R+)",
        "CohereForCausalLM",
        num_attention_heads=4,
        num_key_value_heads=2,
        logit_scale=0.25,
        use_qk_norm=True,
        tie_word_embeddings=True,
        hf=True,
    ),
    "stablelm": make(
        "partial rotary, biases of Q, K, V",
        "StableLmForCausalLM",
        partial_rotary_factor=0.25,
        use_qkv_bias=True,
        hf=True,
    ),
    "stablelm-parallel": make(
        "parallel on one norm",
        "StableLmForCausalLM",
        partial_rotary_factor=0.25,
        use_parallel_residual=True,
    ),
    "stablelm-norms": make(
        "Q and K of each head normed by weights of its own, parallel on one norm (the 12B)",
        "StableLmForCausalLM",
        num_attention_heads=4,
        num_key_value_heads=2,
        partial_rotary_factor=0.25,
        use_parallel_residual=True,
        qk_layernorm=True,
        hf=True,
    ),
    "phi2": make(
        "partial rotary, biases everywhere",
        "PhiForCausalLM",
        partial_rotary_factor=0.5,
        hf=True,
        num_key_value_heads=2,
        intermediate_size=128,
    ),
    "phi3": make(
        "fused matrices, a window",
        "Phi3ForCausalLM",
        sliding_window=48,
        original_max_position_embeddings=256,
        hf=True,
    ),
    "phi3-partial": make(
        "partial rotary",
        "Phi3ForCausalLM",
        partial_rotary_factor=0.75,
        sliding_window=None,
        original_max_position_embeddings=256,
    ),
    "starcoder": make(
        "GPT-2's layers with one KV head",
        "GPTBigCodeForCausalLM",
        n_embd=32,
        n_head=2,
        n_layer=2,
        n_positions=256,
        n_inner=128,
        intermediate_size=128,
        multi_query=True,
        tie_word_embeddings=True,
        hf=True,
    ),
    "gpt-oss": make(
        "sinks, a window in the first of two layers, experts with biases, a clamped SwiGLU, YaRN",
        "GptOssForCausalLM",
        head_dim=16,
        num_local_experts=4,
        num_experts_per_tok=2,
        sliding_window=32,
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 150000.0,
            "factor": 8.0,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "truncate": False,
            "original_max_position_embeddings": 32,
        },
        hf=True,
    ),
}
