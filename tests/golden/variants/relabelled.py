"""Families without a class in transformers, whose graph another class has: its numbers by their names."""

from __future__ import annotations

import re
from typing import Any

import torch
from variant import Variant

from variants.dense import make


def internlm2(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """LLaMA's tensors under InternLM 2's names, Q, K and V in groups of heads: 4 heads over 2 KV heads."""
    renamed = {}
    for name, x in tensors.items():
        for old, new in {
            "embed_tokens": "tok_embeddings",
            "lm_head": "output",
            "self_attn.o_proj": "attention.wo",
            "input_layernorm": "attention_norm",
            "post_attention_layernorm": "ffn_norm",
            "mlp.gate_proj": "feed_forward.w1",
            "mlp.up_proj": "feed_forward.w3",
            "mlp.down_proj": "feed_forward.w2",
        }.items():
            name = name.replace(old, new)
        if not re.search("self_attn.[kv]_proj", name):
            renamed[name] = x
        if "self_attn.q_proj" in name:
            del renamed[name]
            q, k, v = (
                tensors[name.replace("q_proj", f"{part}_proj")].unflatten(0, (2, -1)) for part in "qkv"
            )
            renamed[name.replace("self_attn.q_proj", "attention.wqkv")] = torch.cat((q, k, v), 1).flatten(
                0, 1
            )
    return renamed


def baichuan(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """LLaMA's tensors with Q, K and V in one."""
    renamed = {name: x for name, x in tensors.items() if not re.search("[qkv]_proj", name)}
    for name in [name for name in tensors if "q_proj" in name]:
        parts = [tensors[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
        renamed[name.replace("q_proj", "W_pack")] = torch.cat(parts)
    return renamed


def with_alibi(model: torch.nn.Module) -> None:
    """ALiBi (arXiv 2108.12409) instead of a rotary embedding."""

    def unrotated(x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        shape = (*position_ids.shape, model.config.head_dim)
        return torch.ones(shape), torch.zeros(shape)

    def biased(module: torch.nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        mask, heads = kwargs["attention_mask"], model.config.num_attention_heads
        slopes = torch.tensor([2 ** (-8 * (i + 1) / heads) for i in range(heads)])
        distance = torch.arange(mask.shape[-1])[None, :] - torch.arange(mask.shape[-1])[:, None]
        return args, kwargs | {"attention_mask": mask + slopes[:, None, None] * distance}

    model.model.rotary_emb.forward = unrotated
    for layer in model.model.layers:
        layer.self_attn.register_forward_pre_hook(biased, with_kwargs=True)


def minicpm(what: str, **config: Any) -> Variant:
    """Granite's class has its multipliers: scale_depth / sqrt(layers), and hidden_size / dim_model_base."""
    published = {"architectures": ["MiniCPMForCausalLM"], "model_type": "minicpm"}
    published |= {"scale_emb": 3.0, "scale_depth": 0.8, "dim_model_base": 8}
    base: dict[str, Any] = {
        "hidden_size": 16,
        "tie_word_embeddings": False,
        "num_hidden_layers": 4,
        "intermediate_size": 16,
        "embedding_multiplier": 3.0,
        "residual_multiplier": 0.4,
        "logits_scaling": 2.0,
        "attention_multiplier": 8**-0.5,
        "gains": {"self_attn.o_proj.weight": 4.0, "mlp.down_proj.weight": 5.0},
        "published": published,
    }
    return make(what, "GraniteForCausalLM", **(base | config))


def longrope_keys(keys: dict[str, Any], tensors: dict[str, Any]) -> None:
    """What the converter leaves out: where the long factors begin, and the factor of attention."""
    keys["minicpm.rope.scaling.original_context_length"] = (64, 4, None)
    keys["minicpm.rope.scaling.attn_factor"] = ((1 + 2 / 6) ** 0.5, 6, None)  # 256 = 64 * 4, 64 = 2 ** 6


LLAMA = "LlamaForCausalLM"
VARIANTS = {
    "internlm2": make(
        "Q, K and V in groups of heads",
        LLAMA,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
        checkpoint=internlm2,
        published={"architectures": ["InternLM2ForCausalLM"], "model_type": "internlm2", "bias": False},
    ),
    "baichuan": make(
        "Q, K and V in one",
        LLAMA,
        num_key_value_heads=2,
        tie_word_embeddings=False,
        checkpoint=baichuan,
        published={"architectures": ["BaichuanForCausalLM"], "model_type": "baichuan"},
    ),
    "baichuan-alibi": make(
        "ALiBi in models of 40 layers (the 13B)",
        LLAMA,
        hidden_size=8,
        num_hidden_layers=40,
        intermediate_size=8,
        num_key_value_heads=2,
        tie_word_embeddings=False,
        extend=with_alibi,
        gains={"self_attn.o_proj.weight": 0.3, "mlp.down_proj.weight": 0.3},
        checkpoint=baichuan,
        published={"architectures": ["BaichuanForCausalLM"], "model_type": "baichuan"},
        hf=False,
    ),
    "minicpm": minicpm("multipliers of embedding, residual and logits"),
    "minicpm4": minicpm(
        "factors for long sequences",
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "short_factor": [1.0, 1.1, 1.3, 1.5],
            "long_factor": [1.2, 3.1, 9.7, 21.0],
            "original_max_position_embeddings": 64,
        },
        fix=longrope_keys,
    ),
}
