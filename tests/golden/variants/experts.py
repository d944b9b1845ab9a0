"""Mixtures of experts: GLM-4.5, DeepSeek V2 and V3, and their kin."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from transformers.models.llama.modeling_llama import LlamaMLP
from variant import VOCAB, Variant, make

from variants.dense import VISION, pictures

SHARED: dict[str, Any] = {
    "hidden_size": 24,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "moe_intermediate_size": 16,
    "first_k_dense_replace": 1,
    "routed_scaling_factor": 1.5,
}
GROUPS: dict[str, Any] = {"n_routed_experts": 8, "n_group": 4, "topk_group": 2, "num_experts_per_tok": 3}
LATENT: dict[str, Any] = {
    "num_key_value_heads": 2,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 14,
    "v_head_dim": 12,
}
GAINS = {"kv_b_proj.weight": 1.5, "q_b_proj.weight": 1.5, "kv_a_proj_with_mqa.weight": 1.5}

LONG: dict[str, Any] = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.1, 1.3, 1.2, 1.5, 1.4],
    "long_factor": [1.2, 1.9, 3.1, 5.3, 9.7, 21.0],
    "original_max_position_embeddings": 200,  # the class never uses the long factors
    "long_mscale": math.sqrt(1 + math.log(256 / 200) / math.log(200)),
    "short_mscale": math.sqrt(1 + math.log(256 / 200) / math.log(200)),
}


@torch.no_grad()
def biased(model: torch.nn.Module) -> None:
    """Random biases of the choice of experts, which are buffers."""
    for name, buffer in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            buffer.normal_(0, 0.2).copy_(buffer.bfloat16().float())


def predicting(arch: str) -> Any:
    """Tensors of the layer for multi-token prediction, which published files have behind the last one."""

    def fix(keys: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
        last, n_embd = keys[f"{arch}.block_count"][0] - 1, keys[f"{arch}.embedding_length"][0]
        assert keys[f"{arch}.nextn_predict_layers"][0] == 1
        before = {name: x for name, x in tensors.items() if name.startswith(f"blk.{last - 1}.")}
        tensors |= {name.replace(f"blk.{last - 1}.", f"blk.{last}."): -x for name, x in before.items()}
        tensors[f"blk.{last}.nextn.eh_proj.weight"] = np.ones((n_embd, 2 * n_embd), np.float32)
        for norm in ("enorm", "hnorm", "shared_head_norm"):
            tensors[f"blk.{last}.nextn.{norm}.weight"] = np.ones(n_embd, np.float32)

    return fix


def yarn(mscale: float, theta: float = 10000.0) -> dict[str, Any]:
    return {
        "rope_type": "yarn",
        "rope_theta": theta,
        "factor": 8.0,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "mscale": mscale,
        "mscale_all_dim": mscale,
        "original_max_position_embeddings": 32,
    }


glm = partial(make, model="Glm4MoeForCausalLM", head_dim=16, extend=biased, **SHARED)


def deepseek(what: str, model: str, **config: Any) -> Variant:
    return make(what, model, gains=GAINS, extend=biased, rms_norm_eps=1e-6, **(SHARED | LATENT | config))


class DeepSeekMoE(torch.nn.Module):
    """The block of DeepSeekMoE (arXiv 2401.06066, equations 6 to 8), which transformers has no class for."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        expert = copy.copy(config)
        expert.intermediate_size, shared = 12, copy.copy(config)
        shared.intermediate_size = 24
        self.gate = torch.nn.Linear(config.hidden_size, 4, bias=False)
        self.experts = torch.nn.ModuleList(LlamaMLP(expert) for _ in range(4))
        self.shared_experts = LlamaMLP(shared)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shares = self.gate(x).softmax(dim=-1)
        least = shares.topk(2).values[..., 1:]
        shares = shares * (shares >= least)
        routed = sum(shares[..., i : i + 1] * expert(x) for i, expert in enumerate(self.experts))
        return routed + self.shared_experts(x)


def deepseek_moe(model: Any) -> None:
    model.model.layers[1].mlp = DeepSeekMoE(model.config)


def transposed(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Experts as [in, out], as the published folders have them."""
    return {name: x.swapaxes(1, 2) if ".experts." in name else x for name, x in tensors.items()}


def few(what: str, model: str, **config: Any) -> Variant:
    """Two of four experts."""
    return make(what, model, **({"hidden_size": 24, "num_experts_per_tok": 2} | config))


def granite(what: str, model: str, **config: Any) -> Variant:
    multipliers = {
        "attention_multiplier": 0.4,
        "embedding_multiplier": 3.0,
        "residual_multiplier": 0.7,
        "logits_scaling": 1.5,
    }
    return few(what, model, num_local_experts=4, intermediate_size=16, **multipliers, **config)


def llama4(what: str, **config: Any) -> Variant:
    base = {"num_hidden_layers": 4, "head_dim": 8, "intermediate_size": 12, "intermediate_size_mlp": 20}
    base |= {"num_local_experts": 3, "num_experts_per_tok": 1, "hidden_size": 24}
    return make(what, "Llama4ForCausalLM", **(base | config))


def chunks(keys: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
    """The sizes that are fixed in published models, which have no keys for them."""
    keys["llama4.attention.sliding_window"] = (32, 4, None)
    keys["llama4.attention.temperature_length"] = (32, 4, None)
    keys["llama4.attention.temperature_scale"] = (0.5, 6, None)


VARIANTS = {
    "glm4moe": glm(
        "a dense layer, then experts chosen by biased sigmoids and a shared one; partial rotary, biases",
        attention_bias=True,
        num_mtp_layers=0,
        hf=True,
    ),
    "glm4moe-norms": glm(
        "Q and K normed per head, a layer for multi-token prediction",
        use_qk_norm=True,
        fix=predicting("glm4moe"),
    ),
    "deepseek2": deepseek(
        "latents also of Q; experts by softmax, in the groups with the best expert, not renormalised",
        "DeepseekV2ForCausalLM",
        topk_method="group_limited_greedy",
        published={"scoring_func": "softmax"},
        **GROUPS,
    ),
    "deepseek2-lite": deepseek(
        "Q without a latent, YaRN that scales scores",
        "DeepseekV2ForCausalLM",
        q_lora_rank=None,
        kv_lora_rank=32,
        qk_rope_head_dim=32,
        topk_method="greedy",
        rope_parameters=yarn(0.707),
        published={"scoring_func": "softmax"},
        hf=True,
    ),
    "deepseek2-v3": deepseek(
        "experts by biased sigmoids, in the groups with the best pairs, renormalised and scaled; YaRN",
        "DeepseekV3ForCausalLM",
        norm_topk_prob=True,
        rope_parameters=yarn(1.0),
        published={"scoring_func": "sigmoid"},
        hf=True,
        **GROUPS,
    ),
    "mistral4": deepseek(
        "scores that grow from the 32nd token on, experts by softmax in the groups with the best pairs; YaRN",
        "Mistral4ForCausalLM",
        hidden_size=16,
        intermediate_size=16,
        norm_topk_prob=True,
        rope_parameters=yarn(1.0) | {"llama_4_scaling_beta": 0.1},
        published={"architectures": ["Mistral3ForConditionalGeneration"]},
        hf=True,
        **GROUPS,
    ),
    "deepseek2-glm": deepseek(
        "one group of experts (GLM-4.7-Flash)",
        "Glm4MoeLiteForCausalLM",
        hf=True,
    ),
    "granitemoe": granite(
        "four multipliers, experts by the softmax of the selected scores, and a shared one",
        "GraniteMoeSharedForCausalLM",
        shared_intermediate_size=20,
        hf=True,
    ),
    "granitemoe-plain": granite("no shared expert", "GraniteMoeForCausalLM", hf=True),
    "olmoe": few(
        "Q and K normed whole, weights not renormalised",
        "OlmoeForCausalLM",
        num_key_value_heads=2,
        num_experts=4,
        intermediate_size=16,
        norm_topk_prob=False,
        hf=True,
    ),
    "ernie4_5-moe": few(
        "a dense layer, then experts by biased softmax, renormalised, and shared ones; adjacent pairs",
        "Ernie4_5_MoeForCausalLM",
        moe_num_experts=4,
        moe_k=2,
        moe_num_shared_experts=2,
        moe_intermediate_size=16,
        moe_layer_start_index=1,
        moe_layer_end_index=1,
        head_dim=16,
        hf=True,
    ),
    "hunyuan-moe": few(
        "Q and K normed after the rotation, a shared expert",
        "HunYuanMoEV1ForCausalLM",
        num_experts=4,
        moe_topk=2,
        head_dim=16,
        intermediate_size=16,
        published={"moe_topk": [2, 2], "moe_intermediate_size": [16, 16], "num_shared_expert": [1, 1]},
        hf=True,
    ),
    "minimax-m2": few(
        "Q and K normed whole, partial rotary, experts by biased sigmoids",
        "MiniMaxM2ForCausalLM",
        num_local_experts=4,
        head_dim=16,
        rotary_dim=8,
        intermediate_size=16,
        extend=biased,
        published={"rotary_dim": 8, "scoring_func": "sigmoid"},
        hf=True,
    ),
    "llama4": llama4(
        "no rotary in every fourth layer, Q and K normed elsewhere, experts of scaled inputs",
        hf=True,
    ),
    "llama4-chunks": llama4(
        "chunks of 32, scores that grow with the position, dense layers between those with experts",
        interleave_moe_layer_step=2,
        attention_chunk_size=32,
        floor_scale=32,
        attn_scale=0.5,
        fix=chunks,
    ),
    "dbrx": Variant(
        "layer norms, Q, K and V clamped in one matrix, experts renormalised",
        "DbrxForCausalLM",
        {
            "vocab_size": VOCAB,
            "d_model": 24,
            "n_heads": 2,
            "n_layers": 2,
            "max_seq_len": 256,
            "attn_config": {"clip_qkv": 1.0, "kv_n_heads": 1, "rope_theta": 10000.0},
            "ffn_config": {
                "hidden_size": 24,
                "ffn_hidden_size": 16,
                "moe_num_experts": 4,
                "moe_top_k": 2,
                "moe_normalize_expert_weights": 1.0,
            },
            "bos_token_id": 1,
            "eos_token_id": 2,
            "attn_implementation": "eager",
        },
        published={"attn_config": {"clip_qkv": 1.0, "kv_n_heads": 1, "rope_theta": 10000.0}},
        hf=True,
    ),
    "phimoe": few(
        "layer norms, biases, two experts of which each is weighted beside its rivals",
        "PhimoeForCausalLM",
        num_local_experts=4,
        intermediate_size=16,
        attention_bias=True,
        lm_head_bias=True,
        gains={"gate.weight": 0.3, "router.weight": 0.3},
        rope_parameters=LONG,
        original_max_position_embeddings=200,
        published={"architectures": ["PhiMoEForCausalLM"]},
        hf=True,
    ),
    "deepseek": few(
        "a dense layer, then experts by softmax, not renormalised, and shared ones (DeepSeekMoE)",
        "LlamaForCausalLM",
        extend=deepseek_moe,
        published={
            "architectures": ["DeepseekForCausalLM"],
            "first_k_dense_replace": 1,
            "moe_intermediate_size": 12,
            "n_routed_experts": 4,
            "n_shared_experts": 2,
            "norm_topk_prob": False,
            "num_experts_per_tok": 2,
        },
        hf=True,
    ),
    "qwen3vlmoe": replace(
        pictures(
            "three sections of positions, experts renormalised",
            "Qwen3VLMoeForConditionalGeneration",
            {
                "head_dim": 16,
                "hidden_size": 24,
                "num_experts": 4,
                "num_experts_per_tok": 2,
                "moe_intermediate_size": 16,
            },
            VISION | {"deepstack_visual_indexes": [0], "num_position_embeddings": 4, "out_hidden_size": 24},
        ),
        checkpoint=transposed,
    ),
}
