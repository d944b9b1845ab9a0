"""Hyperparameters of a model that is as small as a test can have it."""

from __future__ import annotations

from typing import Any

from engine.hparams import HParams


def hparams(n_layer: int = 1, **fields: Any) -> HParams:
    """`fields` replace those of a model with two heads of four elements in every layer."""
    per_layer: dict[str, Any] = {
        "n_ff": (8,) * n_layer,
        "n_head": (2,) * n_layer,
        "n_head_kv": (2,) * n_layer,
    }
    small = {"n_embd": 8, "n_vocab": 16, "n_ctx_train": 32, "head_dim_k": 4, "head_dim_v": 4, "eps": 1e-5}
    return HParams(**{"n_layer": n_layer, **per_layer, **small, **fields})
