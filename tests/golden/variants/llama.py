"""LLaMA and what shares its graph. The files of before there were others: weights are full float32."""

from __future__ import annotations

from typing import Any

from variant import VOCAB, Variant

BASE: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "attn_implementation": "eager",
}


def llama(
    what: str, *, model: str = "LlamaForCausalLM", embedding_std: float = 0.25, **config: Any
) -> Variant:
    return Variant(what, model, BASE | config, "llama", embedding_std, bf16=False)


def rope(what: str, **parameters: Any) -> Variant:
    """Two heads of 32 over one KV head: 16 frequencies, so that every part of a ramp is used."""
    parameters.setdefault("rope_theta", 10000.0)
    return llama(
        what,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        rope_parameters=parameters,
    )


def heads(what: str, n: int, kv: int, size: int, **config: Any) -> Variant:
    return llama(what, hidden_size=16, num_attention_heads=n, num_key_value_heads=kv, head_dim=size, **config)


VARIANTS: dict[str, Variant] = {
    # Small embeddings make the first norm's epsilon count.
    "llama-mha-untied": llama(
        "plain attention, own head, eps 1e-5",
        num_attention_heads=2,
        tie_word_embeddings=False,
        embedding_std=0.02,
    ),
    "llama-gqa-tied": llama("two query heads per KV head; head shared with the embedding"),
    "llama-mqa": llama("one KV head", num_key_value_heads=1),
    "llama-biases": llama("biases on Q, K, V, O and in the MLP", attention_bias=True, mlp_bias=True),
    "llama-eps": llama(
        "eps 1e-6",
        num_attention_heads=2,
        num_key_value_heads=1,
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
        embedding_std=0.02,
    ),
    "llama-heads-odd": llama(
        "an odd number of heads", hidden_size=24, num_attention_heads=3, num_key_value_heads=3
    ),
    "llama-head-32": heads("head size 32, n_head * head_dim != n_embd", 2, 1, 32),
    "llama-head-64": heads("head size 64", 2, 1, 64),
    "llama-head-80": heads("head size 80, no multiple of 32", 2, 1, 80),
    "llama-head-96": heads("head size 96", 2, 1, 96),
    "llama-head-128": heads("head size 128", 2, 1, 128),
    "llama-head-256": heads("head size 256", 1, 1, 256, num_hidden_layers=1),
    "llama-rope-theta": rope("RoPE base 5e5", rope_theta=500000.0),
    "llama-rope-linear": rope("linear RoPE scaling", rope_type="linear", factor=4.0),
    "llama-rope-yarn": rope(
        "YaRN with its implied attention factor",
        rope_type="yarn",
        factor=8.0,
        original_max_position_embeddings=32,
    ),
    "llama-rope-yarn-factor": rope(
        "YaRN with a stated attention factor and betas",
        rope_type="yarn",
        factor=8.0,
        original_max_position_embeddings=32,
        attention_factor=0.8,
        beta_fast=2.0,
        beta_slow=0.25,
    ),
    "llama-rope-llama3": rope(
        "frequency factors as a tensor (Llama 3.1)",
        rope_type="llama3",
        factor=8.0,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=64,
    ),
    "llama-window": llama(
        "a sliding window of 48 under a prompt of 150",
        model="MistralForCausalLM",
        sliding_window=48,
        head_dim=16,
    ),
}
