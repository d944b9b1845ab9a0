"""Mixtures of experts, and attention on latents."""

from __future__ import annotations

from support.mistakes.changes import Change, key, without

MISTAKES: dict[str, tuple[str, Change]] = {
    "GLM-4.5: whole head rotated": ("glm4moe", key("rope.dimension_count", 16)),
    "GLM-4.5: experts by softmax": ("glm4moe", key("expert_gating_func", 1)),
    "GLM-4.5: experts chosen without biases": ("glm4moe", without("exp_probs_b")),
    "GLM-4.5: weights not scaled": ("glm4moe", key("expert_weights_scale", 1.0)),
    "GLM-4.5: weights not renormalised": ("glm4moe", key("expert_weights_norm", False)),
    "GLM-4.5: Q and K not normed": ("glm4moe-norms", without("attn_q_norm", "attn_k_norm")),
    "DeepSeek-V2: experts of all groups": ("deepseek2", key("expert_group_used_count", 4)),
    "DeepSeek-V2: experts of one group for two": ("deepseek2", key("expert_group_used_count", 1)),
    "DeepSeek-V2: weights renormalised": ("deepseek2", key("expert_weights_norm", True)),
    "DeepSeek-V2: scores not scaled with YaRN": ("deepseek2-lite", without("yarn_log_multiplier")),
    "DeepSeek-V3: experts of all groups": ("deepseek2-v3", key("expert_group_used_count", 4)),
    "DeepSeek-V3: experts chosen without biases": ("deepseek2-v3", without("exp_probs_b")),
    "DeepSeek-V3: weights not scaled": ("deepseek2-v3", key("expert_weights_scale", 1.0)),
    "DeepSeek-V3: weights not renormalised": ("deepseek2-v3", without("expert_weights_norm")),
    "GLM-4.7-Flash: experts by softmax": ("deepseek2-glm", key("expert_gating_func", 1)),
    "Granite MoE: one expert for two": ("granitemoe", key("expert_used_count", 1)),
    "Granite MoE: blocks not scaled": ("granitemoe", key("residual_scale", 1.0)),
    "OLMoE: three experts for two": ("olmoe", key("expert_used_count", 3)),
    "ERNIE 4.5 MoE: experts chosen without biases": ("ernie4_5-moe", without("exp_probs_b")),
    "ERNIE 4.5 MoE: experts by sigmoids": ("ernie4_5-moe", key("expert_gating_func", 2)),
    "Hunyuan MoE: one expert for two": ("hunyuan-moe", key("expert_used_count", 1)),
    "MiniMax M2: experts chosen without biases": ("minimax-m2", without("exp_probs_b")),
    "MiniMax M2: experts by softmax": ("minimax-m2", key("expert_gating_func", 1)),
    "MiniMax M2: whole head rotated": ("minimax-m2", key("rope.dimension_count", 16)),
    "Llama 4: windows for chunks": ("llama4-chunks", without("sliding_window")),
    "Llama 4: chunks one too small": ("llama4-chunks", key("attention.sliding_window", 31)),
    "Llama 4: scores that do not grow": ("llama4-chunks", key("attention.temperature_scale", 1e-9)),
    "Llama 4: growth begins too late": ("llama4-chunks", key("attention.temperature_length", 33)),
    "Llama 4: two experts for one": ("llama4", key("expert_used_count", 2)),
    "DBRX: no clamp": ("dbrx", key("attention.clamp_kqv", 100.0)),
    "DBRX: one expert for two": ("dbrx", key("expert_used_count", 1)),
    "Phi MoE: no biases": ("phimoe", without(r"attn_(q|k|v|output)\.bias", "output.bias")),
    "Phi MoE: factors for long sequences": ("phimoe", key("rope.scaling.original_context_length", 8)),
    "DeepSeekMoE: weights renormalised": ("deepseek", key("expert_weights_norm", True)),
    "DeepSeekMoE: weights scaled": ("deepseek", key("expert_weights_scale", 2.5)),
    "Qwen3 VL MoE: three experts for two": ("qwen3vlmoe", key("expert_used_count", 3)),
}
