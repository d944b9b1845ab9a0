"""Makes the golden files of this folder: tiny random models and what transformers says they compute.

    python -m venv hf && hf/bin/pip install torch==2.13.0 transformers==5.23.0 gguf==0.19.0
    hf/bin/python tests/golden/make.py [NAME …] [--list]

Every entry of `VARIANTS` becomes NAME.gguf (float32, in the layout that llama.cpp's converter
gives) and NAME.npz (see `reference`). A new variant is a new entry; a new architecture is a new
layout in `layouts.py` and its entries here. Runs on the CPU and gives the same bytes every time.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import layouts
import numpy as np
import torch
import transformers

HERE = Path(__file__).resolve().parent
N_PROMPT, N_GREEDY = 150, 24
POSITIONS = (0, 1, 31, 47, 48, 64, 100, N_PROMPT - 1)  # of the stored logits
MIN_MARGIN = 0.02  # between the two best logits of every greedy step: no near-ties in a reference


@dataclass(frozen=True)
class Variant:
    """One golden file. `what` is what it would catch."""

    what: str
    model: str  # class in transformers
    config: dict[str, Any]
    layout: str = "llama"
    embedding_std: float = 0.25
    extra: dict[str, Any] = field(default_factory=dict)  # for the layout


BASE: dict[str, Any] = {
    "vocab_size": layouts.VOCAB,
    "hidden_size": 64,
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
    return Variant(what, model, BASE | config, "llama", embedding_std)


def rope(what: str, **parameters: Any) -> Variant:
    """Two heads of 32 over one KV head: 16 frequencies, so that every part of a ramp is used."""
    parameters.setdefault("rope_theta", 10000.0)
    return llama(
        what,
        hidden_size=32,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        rope_parameters=parameters,
    )


def heads(what: str, n: int, kv: int, size: int) -> Variant:
    return llama(what, hidden_size=32, num_attention_heads=n, num_key_value_heads=kv, head_dim=size)


VARIANTS: dict[str, Variant] = {
    # Small embeddings make the first norm's epsilon count.
    "llama-mha-untied": llama(
        "plain attention, own head, eps 1e-5",
        num_key_value_heads=4,
        tie_word_embeddings=False,
        embedding_std=0.02,
    ),
    "llama-gqa-tied": llama("two query heads per KV head; head shared with the embedding"),
    "llama-mqa": llama("one KV head", num_key_value_heads=1),
    "llama-head-dim": llama("n_head * head_dim != n_embd", hidden_size=48, head_dim=32),
    "llama-biases": llama("biases on Q, K, V, O and in the MLP", attention_bias=True, mlp_bias=True),
    "llama-eps": llama(
        "eps 1e-6",
        hidden_size=48,
        num_attention_heads=3,
        num_key_value_heads=1,
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
        embedding_std=0.02,
    ),
    "llama-heads-odd": llama(
        "an odd number of heads", hidden_size=48, num_attention_heads=3, num_key_value_heads=3
    ),
    "llama-head-32": llama("head size 32", num_attention_heads=2, num_key_value_heads=1),
    "llama-head-64": heads("head size 64", 2, 1, 64),
    "llama-head-80": heads("head size 80, no multiple of 32", 2, 1, 80),
    "llama-head-96": heads("head size 96", 2, 1, 96),
    "llama-head-128": heads("head size 128", 2, 1, 128),
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
    "llama-moe": llama(
        "Mixtral: 4 experts, the best 2, weights renormalised",
        model="MixtralForCausalLM",
        num_local_experts=4,
        num_experts_per_tok=2,
        intermediate_size=24,
        head_dim=16,
    ),
}

# Gains of the random weights over 1/sqrt(fan-in), by the end of the parameter's name: large enough
# that attention is far from uniform, experts differ, and the logits are far from flat.
GAINS = {
    "q_proj.weight": 1.5,
    "k_proj.weight": 1.5,
    "v_proj.weight": 1.2,
    "o_proj.weight": 1.5,
    "down_proj": 2.0,
    "down_proj.weight": 2.0,
    "lm_head.weight": 2.0,
    "mlp.gate.weight": 2.0,
}


def build(v: Variant, seed: int) -> torch.nn.Module:
    """The random model."""
    cls = getattr(transformers, v.model)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = cls(cls.config_class(**v.config)).float().eval()
        for name, p in model.named_parameters():
            with torch.no_grad():
                if "norm" in name:
                    p.uniform_(0.5, 1.5)
                elif name.endswith("embed_tokens.weight"):
                    p.normal_(0, v.embedding_std)
                elif p.dim() == 1:
                    p.normal_(0, 0.5)
                else:
                    gain = next((g for end, g in GAINS.items() if name.endswith(end)), 1.2)
                    p.normal_(0, gain / p.shape[-1] ** 0.5)
    return model


@torch.no_grad()
def reference(model: torch.nn.Module, seed: int) -> dict[str, np.ndarray]:
    """prompt ids; positions and logits after each; greedy ids, the margin of each, and the logits
    after the last of them. Every step is one whole float32 forward without a cache."""
    rng = np.random.default_rng(seed)
    prompt = np.concatenate([[1], rng.integers(3, layouts.VOCAB, N_PROMPT - 1)]).astype(np.int32)

    def logits(ids: list[int]) -> np.ndarray:
        return model(torch.tensor([ids]), use_cache=False).logits[0].numpy()

    ids = prompt.tolist()
    rows = logits(ids)
    stored, margins, last = rows[list(POSITIONS)], [], rows[-1]
    for _ in range(N_GREEDY):
        second, best = np.sort(last)[-2:]
        margins.append(best - second)
        ids.append(int(last.argmax()))
        last = logits(ids)[-1]
    return {
        "prompt": prompt,
        "positions": np.array(POSITIONS, np.int32),
        "logits": stored.astype(np.float32),
        "greedy": np.array(ids[N_PROMPT:], np.int32),
        "margins": np.array(margins, np.float32),
        "last": last.astype(np.float32),
    }


def good(ref: dict[str, np.ndarray]) -> bool:
    """No near-tie, no control token, no loop of a few tokens: the greedy path tests something."""
    greedy = ref["greedy"]
    return (
        ref["margins"].min() > MIN_MARGIN and greedy.min() > 2 and len(set(greedy.tolist())) > N_GREEDY // 2
    )


def make(name: str, v: Variant) -> None:
    for seed in range(1, 200):
        model = build(v, seed)
        ref = reference(model, seed)
        if good(ref):
            break
    else:
        raise SystemExit(f"{name}: no seed gives a usable greedy path")
    path = HERE / f"{name}.gguf"
    with tempfile.TemporaryDirectory(dir=HERE) as folder:
        part = Path(folder) / path.name
        layouts.LAYOUTS[v.layout](part, f"{name}: {v.what}", model, **v.extra)
        part.replace(path)
    np.savez_compressed(path.with_suffix(".npz"), **ref)
    rows = ref["logits"]
    print(
        f"{name:26} seed {seed:3} {path.stat().st_size // 1024:4} KB  logits' deviation {rows.std():.2f} "
        f"largest {abs(rows).max():.1f}  smallest margin {ref['margins'].min():.3f}  {v.what}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="variants to make; all when none is named")
    parser.add_argument("--list", action="store_true", help="print the variants and stop")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)  # the order of sums, and so the last bits, depends on it
    if args.list:
        for name, v in VARIANTS.items():
            print(f"{name:26} {v.what}")
        return
    if unknown := set(args.names) - set(VARIANTS):
        sys.exit(f"no such variant: {', '.join(sorted(unknown))}")
    for name in args.names or VARIANTS:
        make(name, VARIANTS[name])


if __name__ == "__main__":
    main()
