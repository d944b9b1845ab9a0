"""MPT, Falcon, GPT-NeoX, GPT-J, GPT-2, BLOOM."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.nn.functional import layer_norm
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


def mpt(what: str, *, attention: dict[str, Any] | None = None, **config: Any) -> Variant:
    more = {k: config.pop(k) for k in ("hf", "extend") if k in config}
    base = {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 256}
    attention = {"alibi": True, "attn_type": "multihead_attention"} | (attention or {})
    base |= {"attn_config": attention, "learned_pos_emb": False, "resid_pdrop": 0.0}
    published = {"architectures": ["MPTForCausalLM"]}
    return Variant(what, "MptForCausalLM", IDS | base | config, published=published, **more)


def other_alibi(model: torch.nn.Module, largest: float) -> None:
    """Slopes by `alibi_bias_max`, which transformers reads and does not use."""
    build = model.transformer.build_mpt_alibi_tensor
    model.transformer.build_mpt_alibi_tensor = partial(build, alibi_bias_max=largest)


def as_llm_foundry(model: torch.nn.Module) -> None:
    """Learned positions instead of ALiBi, Q and K normed whole, and biases, as MPT's own code has them."""
    model.transformer.build_mpt_alibi_tensor = lambda heads, n, **more: torch.zeros(heads, 1, n)
    n, wte = model.config.d_model, model.transformer.wte
    model.transformer.wpe = torch.nn.Embedding(model.config.max_seq_len, n)
    wpe = model.transformer.wpe
    wte.register_forward_hook(lambda module, ids, x: x + wpe.weight[: x.shape[1]])
    for block in model.transformer.blocks:
        block.attn.q_ln, block.attn.k_ln = torch.nn.LayerNorm(n), torch.nn.LayerNorm(n)
        block.attn.Wqkv.register_forward_hook(partial(norm_q_and_k, block.attn))
    for module in model.modules():
        if isinstance(module, torch.nn.Linear | torch.nn.LayerNorm) and module is not model.lm_head:
            module.bias = torch.nn.Parameter(torch.zeros(len(module.weight)))


def norm_q_and_k(
    attention: torch.nn.Module, module: torch.nn.Module, x: Any, qkv: torch.Tensor
) -> torch.Tensor:
    q, k, v = qkv.chunk(3, dim=-1)
    norms = attention.q_ln, attention.k_ln
    q, k = (layer_norm(x, x.shape[-1:], n.weight, n.bias) for x, n in zip((q, k), norms, strict=True))
    return torch.cat((q, k, v), dim=-1)


def falcon(what: str, **config: Any) -> Variant:
    more = {k: config.pop(k) for k in ("hf", "fix") if k in config}
    base = {"hidden_size": 24, "num_attention_heads": 3, "num_hidden_layers": 2}
    base |= {"alibi": False, "bias": False, "max_position_embeddings": 256, "rope_theta": 10000.0}
    base |= config
    published = {"num_kv_heads": 1} if base.get("multi_query") and "num_kv_heads" not in config else {}
    return Variant(what, "FalconForCausalLM", IDS | base, published=published, **more)


def falcon_base(keys: dict[str, Any], tensors: dict[str, Any]) -> None:
    """The base of the rotary embedding, which the converter leaves out."""
    keys["falcon.rope.freq_base"] = (500042.0, 6, None)


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
    "mpt-clip": mpt(
        "Q, K, V clamped, other ALiBi slopes",
        attention={"clip_qkv": 1.0, "alibi_bias_max": 16},
        extend=partial(other_alibi, largest=16),
        d_model=24,
    ),
    "mpt-positions": mpt(
        "learned positions, Q and K normed whole, biases",
        attention={"alibi": False, "qk_ln": True},
        learned_pos_emb=True,
        no_bias=False,
        extend=as_llm_foundry,
        d_model=24,
        hf=True,
    ),
    "falcon-7b": falcon("one KV head, one norm, an odd number of heads", multi_query=True, hf=True),
    "falcon-40b": falcon(
        "several KV heads, two norms",
        new_decoder_architecture=True,
        hidden_size=32,
        num_attention_heads=4,
        num_kv_heads=2,
    ),
    "falcon-11b": falcon(
        "several KV heads, one norm, RoPE base of Falcon 2",
        new_decoder_architecture=True,
        num_ln_in_parallel_attn=1,
        rope_theta=500042.0,
        fix=falcon_base,
        num_attention_heads=4,
        num_kv_heads=2,
        hf=True,
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
