"""Changes of a `TinyModel` that make it wrong."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from support.builders.golden import TinyModel

Change = Callable[[TinyModel], None]


def halves(x: np.ndarray, n_head: int) -> np.ndarray:
    """Q or K as if the converter had not permuted it."""
    return x.reshape(n_head, -1, 2, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)


def unpermuted(model: TinyModel) -> None:
    for name, x in model.tensors.items():
        if match := re.search(r"attn_(q|k)\.", name):
            model.tensors[name] = halves(x, 4 if match[1] == "q" else 2)


def exchanged(a: str, b: str) -> Change:
    """Tensors whose names, or what follows a layer's number in them, begin with `a` or `b`."""

    def change(model: TinyModel) -> None:
        t = model.tensors
        names = [name for name in t if re.search(rf"(^|\.){re.escape(a)}", name)]
        assert names
        for name in names:
            other = name.replace(a, b)
            t[name], t[other] = t[other], t[name]

    return change


def pairs_for_halves(model: TinyModel) -> None:
    for name, x in model.tensors.items():
        if re.search(r"attn_(q|k)\.", name):
            model.tensors[name] = halves(
                x, model.keys["qwen2.attention.head_count"][0] if "q." in name else 1
            )


def norms_of_the_first_head(model: TinyModel) -> None:
    match = [name for name in model.tensors if re.search("attn_[qk]_norm", name)]
    assert match
    for name in match:
        x = model.tensors[name]
        model.tensors[name] = np.repeat(x[:1], len(x), axis=0)


def no_sinks(model: TinyModel) -> None:
    for name in [name for name in model.tensors if "attn_sinks" in name]:
        model.tensors[name] = np.full_like(model.tensors[name], -1e4)


def without(*parts: str) -> Change:
    def change(model: TinyModel) -> None:
        for part in parts:
            match = [name for name in (*model.tensors, *model.keys) if re.search(part, name)]
            assert match
            for name in match:
                model.tensors.pop(name, None)
                model.keys.pop(name, None)

    return change


def key(name: str, value: float) -> Change:
    return lambda model: model.set(name, value)
