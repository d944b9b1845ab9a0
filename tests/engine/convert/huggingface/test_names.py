"""The reorderings of rows that GGUF wants."""

from __future__ import annotations

import numpy as np

from engine.convert.huggingface.names import below, by_parts, experts, interleave


def test_interleave_puts_the_halves_of_each_head_side_by_side() -> None:
    rows = np.arange(8)[:, None]  # two heads of four rows: x0 x1 y0 y1
    assert interleave(rows, 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_by_parts_gathers_the_q_k_and_v_of_all_heads() -> None:
    rows = np.arange(12)[:, None]  # two heads: two rows of q, of k, of v
    assert by_parts(rows, 2)[:, 0].tolist() == [0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11]


def test_names_keep_the_placeholders_of_layer_and_expert() -> None:
    assert below("h", {"ln": "attn_norm"}) == {"h.{i}.ln": "blk.{i}.attn_norm"}
    assert experts("moe", "g", "u", "d", "r")["model.layers.{i}.moe.experts.{e}.g"] == "blk.{i}.ffn_gate_exps"
