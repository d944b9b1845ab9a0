"""MPT, Falcon, GPT-NeoX, GPT-J, GPT-2, BLOOM."""

from __future__ import annotations

from typing import Any

from variant import VOCAB, Variant

IDS: dict[str, Any] = {
    "vocab_size": VOCAB,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "attn_implementation": "eager",
}


def gpt2(what: str, *, hf: bool = False, **config: Any) -> Variant:
    base = {"n_embd": 24, "n_layer": 2, "n_head": 2, "n_positions": 256, "n_ctx": 256}
    return Variant(what, "GPT2LMHeadModel", IDS | base | config, hf=hf)


def mpt(what: str, *, hf: bool = False, attention: dict[str, Any] | None = None, **config: Any) -> Variant:
    base = {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 256}
    attention = {"alibi": True, "attn_type": "multihead_attention"} | (attention or {})
    base |= {"attn_config": attention, "learned_pos_emb": False, "resid_pdrop": 0.0}
    published = {"architectures": ["MPTForCausalLM"]}
    return Variant(what, "MptForCausalLM", IDS | base | config, hf=hf, published=published)


def falcon(what: str, *, hf: bool = False, **config: Any) -> Variant:
    base = {"hidden_size": 24, "num_attention_heads": 3, "num_hidden_layers": 2}
    base |= {"alibi": False, "bias": False, "max_position_embeddings": 256, "rope_theta": 10000.0}
    base |= config
    published = {"num_kv_heads": 1} if base.get("multi_query") and "num_kv_heads" not in config else {}
    return Variant(what, "FalconForCausalLM", IDS | base, hf=hf, published=published)


def neox(what: str, *, hf: bool = False, **config: Any) -> Variant:
    base = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 64}
    base |= {"max_position_embeddings": 256, "rotary_pct": 0.25, "use_parallel_residual": True}
    base |= config
    published = {"rotary_pct": base["rotary_pct"]}
    return Variant(what, "GPTNeoXForCausalLM", IDS | base, hf=hf, published=published)


def gptj(what: str, *, hf: bool = False, **config: Any) -> Variant:
    base = {"n_embd": 32, "n_head": 2, "n_layer": 2, "n_inner": 64, "n_positions": 256, "rotary_dim": 8}
    return Variant(what, "GPTJForCausalLM", IDS | base | config, "gptj", hf=hf)


def bloom(what: str, *, hf: bool = False, **config: Any) -> Variant:
    base = {"hidden_size": 32, "n_head": 4, "n_layer": 2, "seq_length": 256}
    gains = {"dense_4h_to_h.weight": 8.0, "self_attention.dense.weight": 6.0}
    return Variant(what, "BloomForCausalLM", IDS | base | config, gains=gains, hf=hf)


VARIANTS = {
    "gpt2": gpt2("learned positions, biases, tied head", hf=True),
    "gpt2-untied": gpt2("own head, eps 1e-3", tie_word_embeddings=False, layer_norm_epsilon=1e-3, n_embd=16),
    "mpt": mpt("ALiBi, heads a power of two, no biases", hf=True),
    "mpt-heads-6": mpt("ALiBi slopes of six heads", n_heads=6, d_model=24),
    "mpt-clip": mpt("Q, K, V clamped", attention={"clip_qkv": 1.0}),
    "falcon-7b": falcon("one KV head, one norm, an odd number of heads", multi_query=True, hf=True),
    "falcon-40b": falcon(
        "several KV heads, two norms",
        new_decoder_architecture=True,
        hidden_size=32,
        num_attention_heads=4,
        num_kv_heads=2,
    ),
    "falcon-mha": falcon(
        "as many KV heads as heads, one norm", multi_query=False, hidden_size=32, num_attention_heads=2
    ),
    "gptneox": neox("parallel residual on two norms, partial rotary, biases, own head", hf=True),
    "gptneox-sequential": neox("sequential residual", use_parallel_residual=False, rotary_pct=1.0),
    "gptj": gptj("partial rotary of adjacent pairs, one norm, bias of the head", hf=True),
    "gptj-rotary-full": gptj("rotary over the whole head", rotary_dim=16),
    "bloom": bloom("ALiBi, heads a power of two, norm on the embedding", hf=True),
    "bloom-heads-5": bloom("ALiBi slopes of five heads", n_head=5, hidden_size=30),
}
