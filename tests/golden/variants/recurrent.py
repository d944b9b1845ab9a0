"""Models whose layers carry a state: LFM2, Mamba, Mamba 2, the gated delta net, and hybrids."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
import variant
from variant import Variant

make = partial(variant.make, intermediate_size=48, num_hidden_layers=3)


def biased(model: Any) -> None:
    """The choice of experts depends on biases, which are zero in a new model."""
    for i, layer in enumerate(model.model.layers):
        bias = getattr(layer.feed_forward, "expert_bias", None)
        if bias is not None:
            bias.copy_(torch.tensor([0.5, -0.25, 0.0, 0.25]).roll(i))


def mamba(what: str, model: str, **config: Any) -> Variant:
    base = {"state_size": 16, "num_hidden_layers": 2, "conv_kernel": 4, "layer_norm_epsilon": 1e-5}
    base |= {"intermediate_size": 64}
    return make(what, model, **(base | config))


def delta_net(what: str, model: str, **config: Any) -> Variant:
    """Two key heads for four value heads, and a quarter of each head rotated."""
    base = {
        "layer_types": ["linear_attention", "full_attention", "linear_attention"],
        "head_dim": 16,
        "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "partial_rotary_factor": 0.25},
    }
    return make(what, model, **(base | config))


EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 40,
}

MAMBA = {
    "mamba_d_state": 16,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_n_groups": 2,
    "mamba_chunk_size": 16,
}
MULTIPLIERS = {  # of Granite
    "embedding_multiplier": 2.0,
    "logits_scaling": 2.0,
    "residual_multiplier": 0.7,
    "attention_multiplier": 0.2,
}


@torch.no_grad()
def chosen_by_biases(model: Any) -> None:
    """The same of Nemotron 3, where they are buffers."""
    for name, buffer in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            buffer.normal_(0, 0.2).copy_(buffer.bfloat16().float())


def predicting(keys: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
    """A layer for multi-token prediction, of attention and experts, as published files have it."""
    arch, n = "nemotron_h_moe", keys["nemotron_h_moe.block_count"][0]
    keys[f"{arch}.block_count"] = (n + 1, *keys[f"{arch}.block_count"][1:])
    keys[f"{arch}.nextn_predict_layers"] = (1, *keys[f"{arch}.block_count"][1:])
    for name, value in (("feed_forward_length", 16), ("attention.head_count_kv", 1)):
        values, *types = keys[f"{arch}.{name}"]
        keys[f"{arch}.{name}"] = ([*values, value], *types)
    before = {name: x for name, x in tensors.items() if name.startswith(("blk.2.", "blk.3."))}
    tensors |= {f"blk.{n}.{name.split('.', 2)[2]}": -x for name, x in before.items()}
    tensors[f"blk.{n}.nextn.eh_proj.weight"] = np.ones((16, 32), np.float32)
    for norm in ("enorm", "hnorm", "shared_head_norm"):
        tensors[f"blk.{n}.nextn.{norm}.weight"] = np.ones(16, np.float32)


def nemotron3(what: str, **config: Any) -> Variant:
    base = {
        "num_hidden_layers": 4,
        "hybrid_override_pattern": "ME*E",
        "hidden_size": 16,
        "head_dim": 8,
        "ssm_state_size": 16,
        "mamba_num_heads": 8,
        "mamba_head_dim": 8,
        "n_groups": 2,
        "conv_kernel": 4,
        "chunk_size": 16,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "moe_shared_expert_intermediate_size": 24,
        "routed_scaling_factor": 1.5,
        "extend": chosen_by_biases,
        "published": {"hybrid_override_pattern": "ME*E", "num_hidden_layers": 4, "layers_block_type": None},
    }
    return make(what, "NemotronHForCausalLM", **(base | config))


VARIANTS = {
    "falcon-h1": make(
        "attention and Mamba 2 side by side, all multipliers",
        "FalconH1ForCausalLM",
        num_hidden_layers=2,
        head_dim=16,
        mamba_d_ssm=64,
        lm_head_multiplier=0.7,
        embedding_multiplier=1.5,
        mlp_multipliers=[0.8, 1.2],
        key_multiplier=0.6,
        attention_in_multiplier=1.1,
        attention_out_multiplier=0.9,
        ssm_in_multiplier=1.2,
        ssm_out_multiplier=0.8,
        ssm_multipliers=[0.9, 1.1, 0.8, 1.2, 0.7],
        hf=True,
        **MAMBA,
    ),
    "granitehybrid": make(
        "Mamba 2 around attention without rotary, Granite's multipliers",
        "GraniteMoeHybridForCausalLM",
        layer_types=["mamba", "attention", "mamba"],
        num_local_experts=0,
        num_experts_per_tok=0,
        shared_intermediate_size=48,
        position_embedding_type="nope",
        published={"layer_types": ["mamba", "attention", "mamba"]},
        hf=True,
        **MULTIPLIERS,
        **MAMBA,
    ),
    "granitehybrid-moe": make(
        "the same with experts and a shared one",
        "GraniteMoeHybridForCausalLM",
        layer_types=["mamba", "attention", "mamba"],
        num_local_experts=4,
        num_experts_per_tok=2,
        intermediate_size=24,
        shared_intermediate_size=40,
        position_embedding_type="nope",
        published={"layer_types": ["mamba", "attention", "mamba"]},
        **MULTIPLIERS,
        **MAMBA,
    ),
    "bamba": make(
        "Granite 4's layers without multipliers, half of each head rotated",
        "BambaForCausalLM",
        hidden_size=16,
        head_dim=8,
        attn_layer_indices=[1],
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
        published={"attn_rotary_emb": 4},
        hf=True,
        **(MAMBA | {"mamba_n_heads": 4}),
    ),
    "jamba": make(
        "Mamba with norms around attention without positions, experts in the second layer",
        "JambaForCausalLM",
        attn_layer_period=3,
        attn_layer_offset=1,
        expert_layer_period=2,
        expert_layer_offset=1,
        num_experts=4,
        num_experts_per_tok=2,
        mamba_d_state=16,
        mamba_d_conv=4,
        mamba_expand=2,
        mamba_dt_rank=4,
        use_mamba_kernels=False,
        hf=True,
    ),
    "lfm2moe": make(
        "experts behind a dense layer, chosen with biases",
        "Lfm2MoeForCausalLM",
        layer_types=["conv", "full_attention", "conv"],
        conv_L_cache=3,
        num_dense_layers=1,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=24,
        use_expert_bias=True,
        tie_word_embeddings=True,
        extend=biased,
        hf=True,
    ),
    "nemotron_h": make(
        "one block a layer: Mamba 2, feed-forward, attention, Mamba 2",
        "NemotronHForCausalLM",
        num_hidden_layers=4,
        hybrid_override_pattern="M-*M",
        head_dim=16,
        ssm_state_size=16,
        mamba_num_heads=8,
        mamba_head_dim=8,
        n_groups=2,
        conv_kernel=4,
        chunk_size=16,
        published={
            "hybrid_override_pattern": "M-*M",
            "num_hidden_layers": 4,
            "layers_block_type": None,
            "num_experts_per_tok": None,
            "n_routed_experts": None,
            "n_group": None,
            "topk_group": None,
        },
        hf=True,
    ),
    "nemotron_h_moe": nemotron3(
        "experts of squared ReLU by biased sigmoids, and a shared one, scaled; a layer for MTP",
        fix=predicting,
    ),
    "nemotron_h_moe-latent": nemotron3(
        "experts that read narrower rows (Super)", moe_latent_size=12, hf=True
    ),
    "mamba": mamba("one block a layer, a tied head", "MambaForCausalLM", tie_word_embeddings=True, hf=True),
    "mamba-falcon": mamba("dt, B and C normed", "FalconMambaForCausalLM", mixer_rms_eps=1e-5),
    "mamba2": mamba(
        "heads in two groups, a norm by groups",
        "Mamba2ForCausalLM",
        num_heads=8,
        head_dim=8,
        n_groups=2,
        expand=2,
        chunk_size=16,
        hf=True,
    ),
    "qwen3next": delta_net(
        "gated delta net around gated attention, experts with a shared one",
        "Qwen3NextForCausalLM",
        decoder_sparse_step=1,
        mlp_only_layers=[],
        norm_topk_prob=True,
        hf=True,
        **EXPERTS,
    ),
    "qwen35": delta_net("the gated delta net with tiled heads", "Qwen3_5ForCausalLM", hf=True),
    "qwen35moe": delta_net(
        "the same with experts and a shared one", "Qwen3_5MoeForCausalLM", hf=True, **EXPERTS
    ),
    "lfm2": make(
        "short convolutions around one layer of attention, a feed-forward of adjusted width",
        "Lfm2ForCausalLM",
        layer_types=["conv", "full_attention", "conv"],
        conv_L_cache=3,
        block_auto_adjust_ff_dim=True,
        block_ffn_dim_multiplier=1.0,
        block_multiple_of=16,
        hf=True,
    ),
}
