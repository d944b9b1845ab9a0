"""Module names of transformers, and the reorderings of rows that several models need for GGUF.

Arrays are in numpy's order: rows first.
"""

from __future__ import annotations

from typing import Any

GELU_TANH = ("gelu_new", "gelu_fast", "gelu_pytorch_tanh")  # three names of the tanh approximation of GELU

# Module names of LLaMA, which most models share.
STANDARD = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "model.layers.{i}.input_layernorm": "blk.{i}.attn_norm",
    "model.layers.{i}.self_attn.q_proj": "blk.{i}.attn_q",
    "model.layers.{i}.self_attn.k_proj": "blk.{i}.attn_k",
    "model.layers.{i}.self_attn.v_proj": "blk.{i}.attn_v",
    "model.layers.{i}.self_attn.o_proj": "blk.{i}.attn_output",
    "model.layers.{i}.post_attention_layernorm": "blk.{i}.ffn_norm",
    "model.layers.{i}.mlp.gate_proj": "blk.{i}.ffn_gate",
    "model.layers.{i}.mlp.up_proj": "blk.{i}.ffn_up",
    "model.layers.{i}.mlp.down_proj": "blk.{i}.ffn_down",
}

# Norms of Q and K per head or per row, where a model has them.
QK_NORMS = {
    "model.layers.{i}.self_attn.q_norm": "blk.{i}.attn_q_norm",
    "model.layers.{i}.self_attn.k_norm": "blk.{i}.attn_k_norm",
}


def experts(block: str, gate: str, up: str, down: str, router: str) -> dict[str, str]:
    """Names of one matrix per expert, below `model.layers.{i}.`, to be stacked."""
    stem = "model.layers.{i}." + block
    return {
        f"{stem}.experts.{{e}}.{gate}": "blk.{i}.ffn_gate_exps",
        f"{stem}.experts.{{e}}.{up}": "blk.{i}.ffn_up_exps",
        f"{stem}.experts.{{e}}.{down}": "blk.{i}.ffn_down_exps",
        f"{stem}.{router}": "blk.{i}.ffn_gate_inp",
    }


def shared_experts(block: str) -> dict[str, str]:
    """Names of the experts that every row uses, below `model.layers.{i}.`."""
    parts = ("gate", "up", "down")
    return {f"model.layers.{{i}}.{block}.{p}_proj": f"blk.{{i}}.ffn_{p}_shexp" for p in parts}


def below(stem: str, names: dict[str, str]) -> dict[str, str]:
    """`names` of one layer's modules with the prefixes `stem`.{i} and blk.{i}."""
    return {f"{stem}.{{i}}.{name}": f"blk.{{i}}.{target}" for name, target in names.items()}


def interleave(x: Any, n_head: int) -> Any:
    """Rows of Q or K from the order of NeoX-style RoPE (x0…, y0…) to interleaved (x0, y0, x1, y1, …)."""
    half = x.shape[0] // n_head // 2
    return x.reshape(n_head, 2, half, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)


def by_parts(x: Any, n_head: int) -> Any:
    """Rows of QKV from (q, k, v) of each head to all Q, all K, all V."""
    return x.reshape(n_head, 3, -1, *x.shape[1:]).swapaxes(0, 1).reshape(x.shape)
