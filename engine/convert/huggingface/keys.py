"""Hyperparameters that most models share: from config.json to GGUF keys."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from engine.errors import ModelError, UnsupportedModelError

Config = dict[str, Any]


def first(c: Config, *names: str, default: Any = None) -> Any:
    """The first of these settings in config.json. Raises ModelError if there is none and no default."""
    for name in names:
        if c.get(name) is not None:
            return c[name]
    if default is None:
        raise ModelError(f"config.json has no `{names[0]}`")
    return default


def refuse(name: str, value: Any, *supported: Any) -> None:
    """Raises UnsupportedModelError for a setting that GGUF keys cannot express."""
    instead = f" (supported: {', '.join(map(str, supported))})" if supported else ""
    raise UnsupportedModelError(f"config.json: {name} is {value!r}, which is not supported{instead}")


def only(c: Config, name: str, *allowed: Any) -> None:
    """Refuse a setting that is neither absent, null nor one of `allowed`. The name a.b is b inside of a."""
    value: Any = c
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if value is not None and value not in allowed:
        refuse(name, value, *allowed)


def windows_but_each(c: Config, n: int) -> None:
    """Refuse layer types other than full attention in every n-th layer and windows in the others."""
    kinds = c.get("layer_types") or ()
    if any((kind == "full_attention") != ((i + 1) % n == 0) for i, kind in enumerate(kinds)):
        refuse("layer_types", kinds, f"every {n}th full_attention")


def windows(c: Config, full_each: int) -> dict[str, Any]:
    """The window and the layers that have it: by `layer_types`, else all but every n-th; {} without any.

    The base of their rotary embedding, where `rope_parameters` states one for them.
    """
    if not c.get("sliding_window"):
        return {}
    layers = range(int(first(c, "num_hidden_layers")))
    kinds = c.get("layer_types") or [
        "full_attention" if (i + 1) % full_each == 0 else "sliding_attention" for i in layers
    ]
    converted = {
        "attention.sliding_window": int(c["sliding_window"]),
        "attention.sliding_window_pattern": [kind == "sliding_attention" for kind in kinds],
    }
    local = (c.get("rope_parameters") or {}).get("sliding_attention") or {}
    if local.get("rope_theta"):
        converted["rope.freq_base_swa"] = float(local["rope_theta"])
    return converted


def common(c: Config) -> dict[str, Any]:
    """Sizes, heads, epsilon, rotary embedding and experts, as far as config.json states them."""
    n_embd = int(first(c, "hidden_size", "n_embd", "d_model"))
    n_head = int(first(c, "num_attention_heads", "n_head", "n_heads"))
    keys: dict[str, Any] = {
        "context_length": int(
            first(c, "max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")
        ),
        "embedding_length": n_embd,
        "block_count": int(first(c, "num_hidden_layers", "n_layer", "n_layers")),
        "feed_forward_length": int(
            first(c, "intermediate_size", "n_inner", "ffn_hidden_size", default=4 * n_embd)
        ),
        "attention.head_count": n_head,
    }
    if kv := c.get("num_key_value_heads"):
        keys["attention.head_count_kv"] = int(kv)
    if head_dim := c.get("head_dim"):
        keys["attention.key_length"] = keys["attention.value_length"] = int(head_dim)
    for key, names in {
        "attention.layer_norm_rms_epsilon": ("rms_norm_eps",),
        "attention.layer_norm_epsilon": ("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", "norm_eps"),
    }.items():
        for name in names:
            if c.get(name) is not None:
                keys[key] = float(c[name])
    for key, names in {
        "expert_count": ("num_local_experts", "num_experts"),
        "expert_used_count": ("num_experts_per_tok",),
        "expert_feed_forward_length": ("moe_intermediate_size",),
        "expert_shared_feed_forward_length": ("shared_expert_intermediate_size",),
    }.items():
        for name in names:
            if c.get(name):
                keys[key] = int(c[name])
    return keys | rope(c, int(c.get("head_dim") or n_embd // n_head))


GATING = {"softmax": 1, "sigmoid": 2}  # the numbers of `expert_gating_func`


def routing(c: Config, gating: str) -> dict[str, Any]:
    """How experts are chosen, under DeepSeek's names. gating: the default if config.json does not say."""
    stated = c.get("scoring_func") or gating
    if stated not in GATING:
        refuse("scoring_func", stated, *GATING)
    keys: dict[str, Any] = {"expert_gating_func": GATING[stated]}
    for key, name in {
        "expert_count": "n_routed_experts",
        "expert_shared_count": "n_shared_experts",
        "leading_dense_block_count": "first_k_dense_replace",
        "expert_group_count": "n_group",
        "expert_group_used_count": "topk_group",
    }.items():
        if c.get(name) is not None:
            keys[key] = int(c[name])
    if c.get("routed_scaling_factor") is not None:
        keys["expert_weights_scale"] = float(c["routed_scaling_factor"])
    if c.get("norm_topk_prob") is not None:
        keys["expert_weights_norm"] = bool(c["norm_topk_prob"])
    return keys


def rope_parameters(c: Config) -> dict[str, Any]:
    """`rope_parameters`, or the older `rope_theta` and `rope_scaling`; {} without a rotary embedding."""
    p = dict(c.get("rope_parameters") or c.get("rope_scaling") or {})
    if "full_attention" in p:
        p = dict(p["full_attention"])
    p.setdefault("rope_type", p.pop("type", "default"))
    for name in ("rope_theta", "partial_rotary_factor"):
        if p.get(name) is None and c.get(name) is not None:
            p[name] = c[name]
    return p if "rope_theta" in p else {}


def rope(c: Config, head_dim: int) -> dict[str, Any]:
    """Keys of the rotary embedding: base, rotated dimensions, linear scaling or YaRN."""
    p = rope_parameters(c)
    if not p:
        return {}
    keys: dict[str, Any] = {"rope.freq_base": float(p["rope_theta"])}
    share = float(p.get("partial_rotary_factor") or 1.0)
    keys["rope.dimension_count"] = int(head_dim * share)
    kind = p["rope_type"]
    if kind == "linear":
        keys |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(p["factor"])}
    elif kind == "yarn":
        keys |= {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": float(p["factor"]),
            "rope.scaling.original_context_length": n_ctx_original(c),
        }
        for key, name in {
            "yarn_attn_factor": "attention_factor",
            "yarn_beta_fast": "beta_fast",
            "yarn_beta_slow": "beta_slow",
        }.items():
            if p.get(name) is not None:
                keys[f"rope.scaling.{key}"] = float(p[name])
    elif kind not in ("default", "llama3", "longrope", "su", "mrope", "proportional"):
        raise UnsupportedModelError(
            f"config.json: rope_type {kind!r} is not supported (default, linear, llama3, longrope, yarn)"
        )
    return keys


def sections(c: Config) -> dict[str, Any]:
    """How many frequencies follow each of the positions of a picture's parts (in text they are equal)."""
    counts = rope_parameters(c).get("mrope_section")
    return {"rope.dimension_sections": [*counts, 0, 0, 0, 0][:4]} if counts else {}


def n_ctx_original(c: Config) -> int:
    """The context length before it was extended; the full length if none is stated."""
    name = "original_max_position_embeddings"
    return int(rope_parameters(c).get(name) or c.get(name) or first(c, "max_position_embeddings"))


def longrope(c: Config) -> dict[str, Any]:
    """Keys of LongRoPE (arXiv 2402.13753); {} if the model does not use it."""
    p = rope_parameters(c)
    if p.get("rope_type") not in ("longrope", "su"):
        return {}
    n = n_ctx_original(c)
    factor = p.get("factor") or first(c, "max_position_embeddings") / n
    stated = p.get("attention_factor")
    usual = math.sqrt(1 + math.log(max(factor, 1)) / math.log(n))
    return {
        "rope.scaling.original_context_length": n,
        "rope.scaling.attn_factor": float(stated if stated is not None else usual),
    }


def longrope_tensors(c: Config) -> dict[str, Any]:
    """LongRoPE's divisors of the frequencies; {} if the model does not use it."""
    p = rope_parameters(c)
    if p.get("rope_type") not in ("longrope", "su"):
        return {}
    return {
        f"rope_factors_{kind}.weight": np.array(p[f"{kind}_factor"], np.float32) for kind in ("long", "short")
    }


def llama3_tensors(c: Config) -> dict[str, Any]:
    """Llama 3.1's RoPE scaling as a tensor; {} if the model does not use it."""
    if rope_parameters(c).get("rope_type") != "llama3":
        return {}
    return {"rope_freqs.weight": np.array(llama3_factors(c), np.float32)}


def llama3_factors(c: Config) -> list[float]:
    """Llama 3.1's frequency divisors: 1 for short wavelengths, `factor` for long ones, a ramp between."""
    p = rope_parameters(c)
    head_dim = int(c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"])
    factors = []
    for i in range(0, head_dim, 2):
        wavelength = 2 * math.pi * p["rope_theta"] ** (i / head_dim)
        turns = p["original_max_position_embeddings"] / wavelength
        low, high = p["low_freq_factor"], p["high_freq_factor"]
        share = min(max((turns - low) / (high - low), 0.0), 1.0)
        factors.append(1 / (share + (1 - share) / p["factor"]))
    return factors
