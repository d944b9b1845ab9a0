"""How transformers' models are spelled, and the reorderings that several of them need for GGUF.

Arrays have numpy's shapes: rows first.
"""

from __future__ import annotations

from typing import Any

GELU_TANH = ("gelu_new", "gelu_fast", "gelu_pytorch_tanh")  # three names of GELU by tanh

# Module names of LLaMA, which most have taken over.
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


def experts(block: str, gate: str, up: str, down: str, router: str) -> dict[str, str]:
    """Names of one matrix per expert, below `model.layers.{i}.`, to be stacked."""
    stem = "model.layers.{i}." + block
    return {
        f"{stem}.experts.{{e}}.{gate}": "blk.{i}.ffn_gate_exps",
        f"{stem}.experts.{{e}}.{up}": "blk.{i}.ffn_up_exps",
        f"{stem}.experts.{{e}}.{down}": "blk.{i}.ffn_down_exps",
        f"{stem}.{router}": "blk.{i}.ffn_gate_inp",
    }


def below(stem: str, names: dict[str, str]) -> dict[str, str]:
    """`names` of a layer's modules, with what stands before them on both sides."""
    return {f"{stem}.{{i}}.{name}": f"blk.{{i}}.{target}" for name, target in names.items()}


def interleave(x: Any, n_head: int) -> Any:
    """Rows of Q or K from halves (x0…, y0…) to the adjacent pairs (x0, y0, …) that `norm` rotates."""
    half = x.shape[0] // n_head // 2
    return x.reshape(n_head, 2, half, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)


def by_parts(x: Any, n_head: int) -> Any:
    """Rows of QKV from (q, k, v) of each head to all Q, all K, all V."""
    return x.reshape(n_head, 3, -1, *x.shape[1:]).swapaxes(0, 1).reshape(x.shape)
