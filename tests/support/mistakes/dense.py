"""The decoders with attention only that came after 2024."""

from __future__ import annotations

import numpy as np

from support.builders.golden import TinyModel
from support.mistakes.changes import Change, exchanged, key, without


def norms_without_one(model: TinyModel) -> None:
    for name, x in model.tensors.items():
        if name.endswith("norm.weight"):
            model.tensors[name] = x - np.float32(1)


def one_xielu(model: TinyModel) -> None:
    """The first layer's parameters everywhere."""
    for name, (values, *kind) in model.keys.items():
        if name.startswith("xielu.alpha"):
            model.keys[name] = ([values[0]] * len(values), *kind)


MISTAKES: dict[str, tuple[str, Change]] = {
    "Granite: embedding not scaled": ("granite", without("embedding_scale")),
    "Granite: blocks not scaled": ("granite", without("residual_scale")),
    "Granite: scores scaled by the head's size": ("granite", without("attention.scale")),
    "Granite: logits multiplied": ("granite", key("logit_scale", 1 / 3)),
    "Granite: no rotation": ("granite", key("rope.scaling.finetuned", False)),
    "Arcee: YaRN as linear scaling": ("arcee", without("scaling.type")),
    "Seed-OSS: no biases": ("seed-oss", without("attn_q.bias", "attn_k.bias", "attn_v.bias")),
    "GLM-4: whole head rotated": ("glm4", key("rope.dimension_count", 16)),
    "GLM-4: norms exchanged": ("glm4", exchanged("post_attention_norm", "post_ffw_norm")),
    "OLMo 3: no window": ("olmo3", without("sliding_window$", "sliding_window_pattern")),
    "OLMo 3: window one too large": ("olmo3", key("attention.sliding_window", 33)),
    "OLMo 3: no YaRN": ("olmo3", without("scaling.type", "scaling.factor")),
    "Command-R7B: window one too small": ("cohere2", key("attention.sliding_window", 31)),
    "Command-R7B: logits not scaled": ("cohere2", key("logit_scale", 1.0)),
    "EXAONE 4: no frequency factors": ("exaone4", without("rope_freqs")),
    "EXAONE 4: norms exchanged": ("exaone4", exchanged("post_attention_norm", "post_ffw_norm")),
    "EXAONE 4: no window": ("exaone4-window", without("sliding_window$", "sliding_window_pattern")),
    "Hunyuan: base without alpha": ("hunyuan-dense", key("rope.freq_base", 10000.0)),
    "Ministral: scores do not grow": ("mistral3", without("temperature_scale")),
    "Ministral: another length": ("mistral3", key("rope.scaling.original_context_length", 48)),
    "Ministral: YaRN's own factor": ("mistral3", key("rope.scaling.yarn_log_multiplier", 0.0)),
    "Apertus: one xIELU for all layers": ("apertus", one_xielu),
    "Apertus: no frequency factors": ("apertus", without("rope_freqs")),
    "Gemma 4: window one too large": ("gemma4", key("attention.sliding_window", 33)),
    "Gemma 4: no soft-cap of logits": ("gemma4", without("final_logit_softcapping")),
    "Gemma 4: whole large head rotated": ("gemma4", without("rope_freqs")),
    "Gemma 4: one rotation for both": ("gemma4", key("rope.freq_base_swa", 1e6)),
    "Gemma 4: layers' outputs not scaled": ("gemma4", without("layer_output_scale")),
    "Gemma 4: norms of experts exchanged": (
        "gemma4-experts",
        exchanged("post_ffw_norm_1", "post_ffw_norm_2"),
    ),
    "Gemma 4: experts not scaled": ("gemma4-experts", without("ffn_down_exps.scale")),
    "Gemma 3n: gates are not sparse": ("gemma3n", key("activation_sparsity_scale", [-30.0] * 6)),
    "Gemma 3n: one rotation for both": ("gemma3n", key("rope.freq_base_swa", 1e6)),
    "Gemma 3n: others' keys and values": ("gemma3n", key("attention.shared_kv_layers", 3)),
    "Gemma 3n: coefficients exchanged": ("gemma3n", exchanged("altup_router_norm", "laurel_post_norm")),
    "Nemotron: norms without the one": ("nemotron", norms_without_one),
    "ChatGLM: whole head rotated": ("chatglm", key("rope.dimension_count", 12)),
    "ChatGLM: no biases": ("chatglm", without("attn_q.bias", "attn_k.bias", "attn_v.bias")),
    "MiniCPM: another scale of the embedding": ("minicpm", without("embedding_scale")),
    "MiniCPM: another scale of the blocks": ("minicpm", without("residual_scale")),
    "MiniCPM: another scale of the logits": ("minicpm", without("logit_scale")),
    "MiniCPM: factors for short sequences": ("minicpm4", key("rope.scaling.original_context_length", 256)),
    "MiniCPM: both factors exchanged": ("minicpm4", exchanged("rope_factors_long", "rope_factors_short")),
    "Nemotron: whole head rotated": ("nemotron", key("rope.dimension_count", 12)),
}
