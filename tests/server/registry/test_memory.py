"""The memory that a loaded model takes."""

from __future__ import annotations

from typing import Any

import pytest

from server.registry.memory import memory_use


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({}, (0, 0)),
        ({"weight_bytes": 80, "kv_bytes": 20, "compute_bytes": {"CPU": 7}, "n_layer": 4}, (107, 0)),
        (
            {
                "weight_bytes": 80,
                "kv_bytes": 20,
                "compute_bytes": {"CPU": 7, "CUDA0": 5},
                "n_layer": 4,
                "gpu_layers": 2,
            },
            (112, 55),
        ),
        (
            {
                "weight_bytes": 80,
                "draft_model": {"weight_bytes": 8, "kv_bytes": 2, "n_layer": 1, "gpu_layers": 2},
            },
            (90, 10),
        ),
        ({"weight_bytes": 80, "draft_model": None}, (80, 0)),
        # the output layer counts among those on the GPU
        ({"weight_bytes": 100, "compute_bytes": {"CUDA0": 5}, "n_layer": 4, "gpu_layers": 5}, (105, 105)),
    ],
)
def test_memory_use_counts_layers_by_their_share(info: dict[str, Any], expected: tuple[int, int]) -> None:
    assert memory_use(info) == expected
