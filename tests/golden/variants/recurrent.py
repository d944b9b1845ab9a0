"""Models whose layers carry a state: LFM2, Mamba, Mamba 2, the gated delta net, and hybrids."""

from __future__ import annotations

from typing import Any

from variant import VOCAB, Variant

BASE: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "attn_implementation": "eager",
}


def make(what: str, model: str, *, hf: bool = False, **config: Any) -> Variant:
    more = {k: config.pop(k) for k in ("gains", "fix", "published", "embedding_std") if k in config}
    return Variant(what, model, BASE | config, hf=hf, **more)


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

VARIANTS = {
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
