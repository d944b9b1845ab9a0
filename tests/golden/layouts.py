"""How a transformers model is laid out in a GGUF: key names, tensor names, order of rows.

Facts are those of llama.cpp's converters. One function per family, all in `LAYOUTS`:
(path, name, model) -> file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch

PIECES = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), "▁", "a", "e", "t", "o"]
VOCAB = len(PIECES)  # 264


def vocabulary(w: gguf.GGUFWriter) -> None:
    """The smallest useful SentencePiece vocabulary: bytes and a few letters."""
    kind = gguf.TokenType
    w.add_vocab_size(VOCAB)
    w.add_tokenizer_model("llama")
    w.add_tokenizer_pre("default")
    w.add_token_list(PIECES)
    w.add_token_scores([0.0] * 259 + [-float(i) for i in range(VOCAB - 259)])
    w.add_token_types(
        [kind.UNKNOWN, kind.CONTROL, kind.CONTROL] + [kind.BYTE] * 256 + [kind.NORMAL] * (VOCAB - 259)
    )
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    w.add_unk_token_id(0)
    w.add_add_bos_token(True)


def interleave(x: torch.Tensor, n_head: int) -> torch.Tensor:
    """Rows of Q or K from halves (x0…, y0…) to the pairs (x0, y0, …) that llama's RoPE rotates."""
    half = x.shape[0] // n_head // 2
    return x.reshape(n_head, 2, half, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)


def llama3_factors(head_dim: int, p: dict[str, Any]) -> np.ndarray:
    """What each frequency is divided by: 1 for short waves, `factor` for long ones, a ramp between."""
    factors = []
    for i in range(0, head_dim, 2):
        wavelength = 2 * math.pi * p["rope_theta"] ** (i / head_dim)
        turns = p["original_max_position_embeddings"] / wavelength
        low, high = p["low_freq_factor"], p["high_freq_factor"]
        share = min(max((turns - low) / (high - low), 0.0), 1.0)
        factors.append(1 / (share + (1 - share) / p["factor"]))
    return np.array(factors, np.float32)


def rope_keys(w: gguf.GGUFWriter, p: dict[str, Any]) -> None:
    w.add_rope_freq_base(p["rope_theta"])
    kind = p.get("rope_type", "default")
    if kind == "linear":
        w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        w.add_rope_scaling_factor(p["factor"])
    elif kind == "yarn":
        w.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        w.add_rope_scaling_factor(p["factor"])
        w.add_rope_scaling_orig_ctx_len(p["original_max_position_embeddings"])
        if "attention_factor" in p:
            w.add_rope_scaling_yarn_attn_factor(p["attention_factor"])
        if "beta_fast" in p:
            w.add_rope_scaling_yarn_beta_fast(p["beta_fast"])
        if "beta_slow" in p:
            w.add_rope_scaling_yarn_beta_slow(p["beta_slow"])
    elif kind not in ("default", "llama3"):
        raise ValueError(f"no layout for rope_type {kind}")


LLAMA_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def llama_tensors(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    c = model.config
    for name, x in model.state_dict().items():
        stem, _, end = name.rpartition(".")
        if name == "model.embed_tokens.weight":
            yield "token_embd.weight", x
        elif name == "model.norm.weight":
            yield "output_norm.weight", x
        elif name == "lm_head.weight":
            if not c.tie_word_embeddings:
                yield "output.weight", x
        else:
            _, _, layer, part = stem.split(".", 3)
            if part.endswith("q_proj"):
                x = interleave(x, c.num_attention_heads)
            elif part.endswith("k_proj"):
                x = interleave(x, c.num_key_value_heads)
            yield f"blk.{layer}.{LLAMA_NAMES[part]}.{end}", x


def llama(path: Path, name: str, model: torch.nn.Module) -> None:
    """LLaMA and Mistral: architecture `llama`."""
    c = model.config
    size = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    w = gguf.GGUFWriter(str(path), "llama")
    w.add_name(name)
    w.add_file_type(gguf.LlamaFileType.ALL_F32)
    w.add_context_length(c.max_position_embeddings)
    w.add_embedding_length(c.hidden_size)
    w.add_block_count(c.num_hidden_layers)
    w.add_feed_forward_length(c.intermediate_size)
    w.add_head_count(c.num_attention_heads)
    w.add_head_count_kv(c.num_key_value_heads)
    w.add_layer_norm_rms_eps(c.rms_norm_eps)
    w.add_rope_dimension_count(size)
    if size * c.num_attention_heads != c.hidden_size:
        w.add_key_length(size)
        w.add_value_length(size)
    if window := getattr(c, "sliding_window", None):
        w.add_sliding_window(window)
    rope_keys(w, c.rope_parameters)
    vocabulary(w)
    if c.rope_parameters.get("rope_type") == "llama3":
        w.add_tensor("rope_freqs.weight", llama3_factors(size, c.rope_parameters))
    for tensor, x in llama_tensors(model):
        w.add_tensor(tensor, np.ascontiguousarray(x.float().numpy()))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


GPTJ_NAMES = {
    "transformer.wte": "token_embd",
    "transformer.ln_f": "output_norm",
    "lm_head": "output",
    "ln_1": "attn_norm",
    "attn.q_proj": "attn_q",
    "attn.k_proj": "attn_k",
    "attn.v_proj": "attn_v",
    "attn.out_proj": "attn_output",
    "mlp.fc_in": "ffn_up",
    "mlp.fc_out": "ffn_down",
}


def gptj(path: Path, name: str, model: torch.nn.Module) -> None:
    """GPT-J, for which there is no public converter: docs/architectures.md."""
    c = model.config
    w = gguf.GGUFWriter(str(path), "gptj")
    w.add_name(name)
    w.add_file_type(gguf.LlamaFileType.ALL_F32)
    w.add_context_length(c.n_positions)
    w.add_embedding_length(c.n_embd)
    w.add_block_count(c.n_layer)
    w.add_feed_forward_length(c.n_inner or 4 * c.n_embd)
    w.add_head_count(c.n_head)
    w.add_layer_norm_eps(c.layer_norm_epsilon)
    w.add_rope_dimension_count(c.rotary_dim)
    vocabulary(w)
    for tensor, x in model.state_dict().items():
        stem, _, end = tensor.rpartition(".")
        if stem in GPTJ_NAMES:
            target = GPTJ_NAMES[stem]
        elif end in ("weight", "bias"):
            _, _, layer, part = stem.split(".", 3)
            target = f"blk.{layer}.{GPTJ_NAMES[part]}"
        else:
            continue
        w.add_tensor(f"{target}.{end}", np.ascontiguousarray(x.float().numpy()))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


LAYOUTS: dict[str, Callable[..., None]] = {"llama": llama, "gptj": gptj}
