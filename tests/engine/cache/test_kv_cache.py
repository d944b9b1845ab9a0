"""The tensors of the KV cache: types, sizes, and copies of scattered cells."""

from __future__ import annotations

from array import array
from dataclasses import replace

import pytest

from engine.cache.kv_cache import KVCache, bytes_per_cell, check_type, runs
from engine.errors import ConfigError
from engine.hparams import HParams, Latent
from support.builders.hparams import hparams
from support.references.calculator import CPU


def layers(*, head_dim_k: int = 32, head_dim_v: int = 64) -> HParams:
    return hparams(2, n_head=(4, 4), n_head_kv=(1, 2), head_dim_k=head_dim_k, head_dim_v=head_dim_v)


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ([], []),
        ([5], [(5, 1)]),
        ([5, 6, 7], [(5, 3)]),
        ([7, 6, 5], [(7, 1), (6, 1), (5, 1)]),
        ([1, 2, 9, 3, 4], [(1, 2), (9, 1), (3, 2)]),
        ([4, 4], [(4, 1), (4, 1)]),
    ],
)
def test_runs_of_consecutive_cells_keep_their_order(
    cells: list[int], expected: list[tuple[int, int]]
) -> None:
    assert list(runs(array("i", cells))) == expected


@pytest.mark.parametrize(
    ("kv_type", "expected"), [("f16", [96 * 2, 192 * 2]), ("f32", [96 * 4, 192 * 4]), ("q8_0", [102, 204])]
)
def test_bytes_per_cell_match_those_of_each_layers_heads(kv_type: str, expected: list[int]) -> None:
    assert bytes_per_cell(layers(), kv_type) == expected


def test_values_within_the_keys_take_no_memory() -> None:
    latent = replace(layers(head_dim_k=96), latent=Latent(head_dim_k=24, head_dim_v=16))
    assert bytes_per_cell(latent, "f16") == [96 * 2, 2 * 96 * 2]
    cache = KVCache(latent, 3, "f16", [CPU.buffer_types()[-1]] * 2)
    assert [(name, tuple(table.shape)[:2]) for name, table, _ in cache.tables()] == [
        ("k.0", (96, 3)),
        ("k.1", (192, 3)),
    ]
    cache.close()


@pytest.mark.parametrize(
    ("hp", "kv_type", "message"),
    [
        (layers(), "q9", "kv_type is 'q9'; it must be one of f16, f32"),
        (layers(head_dim_k=40), "q8_0", "blocks of 32, but this model's key heads have 40 elements"),
        (layers(head_dim_v=80), "q4_0", "this model's value heads have 80 elements; use f16"),
    ],
)
def test_check_type_refuses_heads_that_are_not_whole_blocks(hp: HParams, kv_type: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_type(hp, kv_type)


def test_rows_of_scattered_cells_are_read_as_they_were_written() -> None:
    cache = KVCache(layers(), 8, "f16", [CPU.buffer_types()[-1]] * 2)
    tables = {name: table for name, table, _ in cache.tables()}
    assert list(tables) == ["k.0", "v.0", "k.1", "v.1"]
    table = tables["k.1"]
    size = table.strides[1]
    assert size == 2 * 32 * 2
    assert b"".join(cache.read(table, array("i", range(8)))) == bytes(8 * size)  # zeroed
    rows = bytes(i % 251 for i in range(3 * size))
    cache.write(table, array("i", [6, 1, 2]), memoryview(rows))
    assert b"".join(cache.read(table, array("i", [6, 1, 2]))) == rows
    assert b"".join(cache.read(table, array("i", [2, 6]))) == rows[2 * size :] + rows[:size]


def test_rows_of_another_length_are_not_written() -> None:
    cache = KVCache(layers(), 8, "f16", [CPU.buffer_types()[-1]] * 2)
    with pytest.raises(ValueError, match="5 bytes for 1 cells"):
        cache.write(cache.k[0], array("i", [0]), memoryview(bytes(5)))
