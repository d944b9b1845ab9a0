"""Layers with a state: short convolutions, Mamba, the gated delta net."""

from __future__ import annotations

import re

import numpy as np

from support.builders.golden import TinyModel
from support.mistakes.changes import Change, exchanged, key, without


def reversed_kernels(model: TinyModel) -> None:
    """The oldest input gets the weight of the newest."""
    names = [name for name in model.tensors if re.search(r"conv1d\.weight|shortconv\.conv\.", name)]
    assert names
    for name in names:
        model.tensors[name] = np.ascontiguousarray(model.tensors[name][:, ::-1])


def neighbours_for_turns(model: TinyModel) -> None:
    """Beta and alpha of heads in another order than their values."""
    for name in [name for name in model.tensors if re.search(r"ssm_(beta|alpha)\.", name)]:
        x = model.tensors[name]
        model.tensors[name] = np.concatenate([x[::2], x[1::2]])


MISTAKES: dict[str, tuple[str, Change]] = {
    "LFM2: kernels reversed": ("lfm2", reversed_kernels),
    "LFM2: Q and K share a norm": ("lfm2", exchanged("attn_q_norm", "attn_k_norm")),
    "Mamba: kernels reversed": ("mamba", reversed_kernels),
    "Mamba: no bias of the convolution": ("mamba", without("ssm_conv1d.bias")),
    "Mamba: no bias of the time steps": ("mamba", without("ssm_dt.bias")),
    "Falcon Mamba: dt, B and C not normed": ("mamba-falcon", key("ssm.dt_b_c_rms", False)),
    "Mamba 2: no norm by groups": ("mamba2", without("ssm_norm")),
    "Mamba 2: no bias of the convolution": ("mamba2", without("ssm_conv1d.bias")),
    "Falcon-H1: kernels reversed": ("falcon-h1", reversed_kernels),
    "Bamba: whole head rotated": ("bamba", key("rope.dimension_count", 8)),
    "Bamba: no rotary embedding": ("bamba", key("rope.scaling.finetuned", False)),
    "Granite 4: residuals not scaled": ("granitehybrid", key("residual_scale", 1.0)),
    "Granite 4: a rotary embedding": ("granitehybrid", key("rope.scaling.finetuned", True)),
    "Granite 4: one expert for two": ("granitehybrid-moe", key("expert_used_count", 1)),
    "Jamba: dt not normed": ("jamba", without("ssm_dt_norm", "ssm_b_norm", "ssm_c_norm")),
    "Jamba: one expert for two": ("jamba", key("expert_used_count", 1)),
    "LFM2 MoE: experts chosen without biases": ("lfm2moe", without("exp_probs_b")),
    "Nemotron-H: no norm by groups": ("nemotron_h", without("ssm_norm")),
    "Nemotron 3: one expert for two": ("nemotron_h_moe", key("expert_used_count", 1)),
    "Nemotron 3: experts by softmax": ("nemotron_h_moe", key("expert_gating_func", 1)),
    "Nemotron 3: experts chosen without biases": ("nemotron_h_moe-latent", without("exp_probs_b")),
    "Nemotron 3: weights not scaled": ("nemotron_h_moe-latent", key("expert_weights_scale", 1.0)),
    "Qwen3-Next: whole head rotated": ("qwen3next", key("rope.dimension_count", 16)),
    "Qwen3-Next: one expert for two": ("qwen3next", key("expert_used_count", 1)),
    "Qwen3-Next: norms exchanged": ("qwen3next", exchanged("attn_norm", "post_attention_norm")),
    "Qwen 3.5: heads in another order": ("qwen35", neighbours_for_turns),
    "Qwen 3.5: alpha for beta": ("qwen35", exchanged("ssm_alpha", "ssm_beta")),
    "Qwen 3.5 MoE: kernels reversed": ("qwen35moe", reversed_kernels),
}
