"""Makes the golden files of this folder: tiny random models and what transformers says they compute.

    python -m venv hf && hf/bin/pip install torch==2.13.0 transformers==5.24.0 gguf==0.19.0
    hf/bin/python tests/golden/make.py [NAME …] [--list]

Every variant of `variants/` becomes NAME.gguf (float32, in the layout that llama.cpp's converter
gives) and NAME.npz (see `reference`), some also the folder hf/NAME that the GGUF was converted from.
Runs on the CPU and gives the same bytes every time on the same processor.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path

import converter
import huggingface
import layouts
import numpy as np
import torch
import transformers
from variant import Variant
from variants import VARIANTS

HERE = Path(__file__).resolve().parent
N_PROMPT, N_GREEDY = 150, 24
POSITIONS = (0, 1, 31, 47, 48, 64, 100, N_PROMPT - 1)  # of the stored logits
MIN_MARGIN = 0.02  # between the two best logits of every greedy step: no near-ties in a reference


# Gains of the random weights over 1/sqrt(fan-in), by the end of the parameter's name: large enough
# that attention is far from uniform, experts differ, and the logits are far from flat.
GAINS = {
    "attn.c_attn.weight": 1.5,
    "c_proj.weight": 3.0,
    "query_key_value.weight": 1.5,
    "Wqkv.weight": 1.5,
    "out_proj.weight": 2.0,
    "dense_4h_to_h.weight": 3.0,
    "mlp.dense_4h_to_h.weight": 3.0,
    "fc_out.weight": 3.0,
    "fc2.weight": 3.0,
    "embed_out.weight": 2.0,
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
        if v.extend is not None:
            v.extend(model)
        (fill if v.bf16 else fill_llama)(model, v)
    if v.bf16:
        for p in model.parameters():  # not the buffers, which hold frequencies
            p.data = p.data.bfloat16().float()
    return model


@torch.no_grad()
def fill_llama(model: torch.nn.Module, v: Variant) -> None:
    """By the names of LLaMA's parameters."""
    for name, p in model.named_parameters():
        if "norm" in name:
            p.uniform_(0.5, 1.5)
        elif name.endswith("embed_tokens.weight"):
            p.normal_(0, v.embedding_std)
        elif p.dim() == 1:
            p.normal_(0, 0.5)
        else:
            gain = next((g for end, g in GAINS.items() if name.endswith(end)), 1.2)
            p.normal_(0, gain / p.shape[-1] ** 0.5)


@torch.no_grad()
def fill(model: torch.nn.Module, v: Variant) -> None:
    """By the kinds of modules, whatever their names."""
    gains, seen = v.gains | GAINS, set()
    for stem, module in model.named_modules():
        kind = type(module).__name__
        for end, p in module.named_parameters(recurse=False):
            name = f"{stem}.{end}"
            if id(p) in seen:  # a tied head
                continue
            seen.add(id(p))
            if "Norm" in kind and end == "weight":
                scales = kind.startswith(("Gemma3n", "Gemma4"))  # the others of Gemma add the one themselves
                centre = 0.0 if "Gemma" in kind and not scales else 1.0
                p.uniform_(centre - 0.5, centre + 0.5)
                if scales and stem.endswith("q_norm"):  # nothing else scales its scores
                    p.mul_(0.35)
            elif isinstance(module, torch.nn.Embedding):
                p.normal_(0, v.embedding_std)
            elif p.dim() == 1:
                # A large bias at the end makes the same few tokens win everywhere.
                p.normal_(0, 0.1 if "Norm" in kind or "head" in stem else 0.3)
            else:
                n_in = p.shape[-2] if kind == "Conv1D" or end in TRANSPOSED else p.shape[-1]
                gain = next((g for last, g in gains.items() if name.endswith(last)), 1.2)
                p.normal_(0, gain / n_in**0.5)


TRANSPOSED: tuple[str, ...] = ()  # parameters of experts that are [in, out]


@torch.no_grad()
def reference(model: torch.nn.Module, seed: int) -> dict[str, np.ndarray]:
    """prompt ids; positions and logits after each; greedy ids, the margin of each, and the logits
    after the last of them. Every step is one whole float32 forward without a cache."""
    rng = np.random.default_rng(seed)
    prompt = np.concatenate([[1], rng.integers(3, layouts.VOCAB, N_PROMPT - 1)]).astype(np.int32)

    def logits(ids: list[int]) -> np.ndarray:
        return model(torch.tensor([ids]), use_cache=False).logits[0].numpy()

    ids = prompt.tolist()
    if "longrope" in str(getattr(model.config, "rope_parameters", None)):  # the length decides of all tokens
        stored = np.stack([logits(ids[: position + 1])[-1] for position in POSITIONS])
    else:
        stored = logits(ids)[list(POSITIONS)]
    margins, last = [], stored[-1]
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


@torch.no_grad()
def reference_of_encoder(model: torch.nn.Module, seed: int) -> dict[str, np.ndarray]:
    """prompt ids, and the hidden state of each: float32 [150, n_embd]."""
    rng = np.random.default_rng(seed)
    prompt = np.concatenate([[2], rng.integers(5, layouts.VOCAB, N_PROMPT - 2), [3]]).astype(np.int32)
    hidden = model(torch.tensor([prompt.tolist()])).last_hidden_state[0].numpy()
    return {"prompt": prompt, "hidden": hidden.astype(np.float32)}


@torch.no_grad()
def reference_of_ranker(model: torch.nn.Module, seed: int) -> dict[str, np.ndarray]:
    """prompt ids of two sentences, where the `second` begins, and the scores: float32 [n_scores]."""
    rng = np.random.default_rng(seed)
    query, document = rng.integers(5, layouts.VOCAB, 60), rng.integers(5, layouts.VOCAB, N_PROMPT - 63)
    prompt = np.concatenate([[2], query, [3], document, [3]]).astype(np.int32)
    second = len(query) + 2
    types = (np.arange(len(prompt)) >= second) & (model.config.type_vocab_size > 1)
    actual = model(torch.tensor([prompt.tolist()]), token_type_ids=torch.tensor([types.astype(int).tolist()]))
    return {
        "prompt": prompt,
        "second": np.array(second, np.int32),
        "scores": actual.logits[0].numpy().astype(np.float32),
    }


def good(ref: dict[str, np.ndarray], v: Variant) -> bool:
    """No near-tie, no control token, no loop of a few tokens: the greedy path tests something."""
    greedy, margin = ref["greedy"], ref["margins"].min()
    distinct = len(set(greedy.tolist()))
    if not v.bf16:
        return margin > MIN_MARGIN and greedy.min() > 2 and distinct > N_GREEDY // 2
    return margin > MIN_MARGIN / 2 * ref["logits"].std() and greedy.min() > 2 and distinct > N_GREEDY // 3


def make(name: str, v: Variant) -> None:
    for seed in range(1, 200):
        model = build(v, seed)
        if "SequenceClassification" in v.model:
            ref = reference_of_ranker(model, seed)
            break
        if "Bert" in v.model or v.config.get("use_bidirectional_attention"):
            ref = reference_of_encoder(model, seed)
            break
        ref = reference(model, seed)
        if good(ref, v):
            break
    else:
        raise SystemExit(f"{name}: no seed gives a usable greedy path")
    path = HERE / f"{name}.gguf"
    with tempfile.TemporaryDirectory(dir=HERE) as temporary:
        part = Path(temporary) / path.name
        title = f"{name}: {v.what}"
        if v.layout == "convert":
            folder = Path(temporary) / "folder"
            huggingface.save(model, folder, v)
            converter.convert(folder, part, title, v.fix)
        else:
            layouts.LAYOUTS[v.layout](part, title, model)
        part.replace(path)
    if v.hf:
        huggingface.save(model.to(torch.bfloat16), HERE / "hf" / name, v)
    np.savez_compressed(path.with_suffix(".npz"), **ref)
    rows = next(ref[kind] for kind in ("scores", "hidden", "logits") if kind in ref)
    margin = f"  smallest margin {ref['margins'].min():.3f}" if "margins" in ref else ""
    print(
        f"{name:26} seed {seed:3} {path.stat().st_size // 1024:4} KB  outputs' deviation {rows.std():.2f} "
        f"largest {abs(rows).max():.1f}{margin}  {v.what}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="variants to make; all when none is named")
    parser.add_argument("--list", action="store_true", help="print the variants and stop")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
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
