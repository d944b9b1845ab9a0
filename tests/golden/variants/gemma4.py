"""Gemma 3n and 4: heads of two sizes, layers that read keys and values of others, inputs of each layer."""

from __future__ import annotations

from typing import Any

import torch
from variant import Variant

from variants.dense import make

BASE: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 6,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "global_head_dim": 16,
    "sliding_window": 32,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2,
    "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        "full_attention": {
            "rope_type": "proportional",
            "partial_rotary_factor": 0.25,
            "rope_theta": 1000000.0,
        },
    },
    "final_logit_softcapping": 3.0,
    "vocab_size_per_layer_input": 264,
    "hidden_size_per_layer_input": 0,
    "embedding_std": 0.06,
}


def scalars(model: torch.nn.Module) -> None:
    """Numbers that multiply the output of each layer, other than one."""
    for i, layer in enumerate(model.model.layers):
        layer.layer_scalar.fill_(0.75 + 0.125 * i)


def of_streams(model: torch.nn.Module) -> None:
    """Numbers that multiply what the other streams get, other than zero."""
    for layer in model.model.layers:
        torch.nn.init.uniform_(layer.altup.correct_output_scale, 0.5, 1.5)


def gemma4(what: str, **config: Any) -> Variant:
    return make(what, "Gemma4ForCausalLM", **(BASE | {"extend": scalars} | config))


VARIANTS = {
    "gemma4": gemma4(
        "V of layers without a window is their K, which have another number of heads",
        num_attention_heads=4,
        num_key_value_heads=2,
        num_global_key_value_heads=1,
        attention_k_eq_v=True,
    ),
    "gemma4-shared": gemma4(
        "the last three layers read earlier keys and values and are twice as wide, inputs of each layer",
        hidden_size_per_layer_input=4,
        num_kv_shared_layers=3,
        use_double_wide_mlp=True,
    ),
    "gemma4-experts": gemma4(
        "experts beside the feed-forward, a router with norms and scales of its own",
        num_hidden_layers=3,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
        enable_moe_block=True,
        num_experts=4,
        top_k_experts=2,
        moe_intermediate_size=12,
        gains={"router.proj.weight": 3.0},
    ),
    "gemma3n": make(
        "residual streams beside each other, a block of low rank, sparse gates, shared keys and values",
        "Gemma3nForCausalLM",
        hidden_size=16,
        intermediate_size=[16] * 6,
        num_hidden_layers=6,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        sliding_window=32,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"] * 2,
        rope_parameters=BASE["rope_parameters"]
        | {"full_attention": {"rope_type": "default", "rope_theta": 1000000.0}},
        final_logit_softcapping=3.0,
        vocab_size_per_layer_input=264,
        hidden_size_per_layer_input=4,
        num_kv_shared_layers=2,
        laurel_rank=4,
        activation_sparsity_pattern=[0.8, 0.8, 0.0, 0.0, 0.0, 0.0],
        embedding_std=0.12,
        extend=of_streams,
        gains={"prediction_coefs.weight": 0.5, "correction_coefs.weight": 0.5},
        hf=True,
    ),
}
