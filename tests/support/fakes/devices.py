"""Offload plans on made-up devices. Sizes are small numbers, so that each case can be checked by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.config import ModelParameters
from engine.model.placement import DeviceInfo, Needs, Part, Plan, plan


def device(name: str, free: int, type: str = "gpu", backend: str = "CUDA") -> DeviceInfo:
    return DeviceInfo(name=name, backend=backend, type=type, free=free, total=max(free, 1))


def cpu(free: int = 1000) -> DeviceInfo:
    return device("CPU", free, "cpu", "CPU")


def needs(
    n_layers: int = 4,
    weights: int = 10,
    kv_cell: int = 1,
    output: int = 10,
    embedding: int = 10,
    compute: int = 5,
    mapped: bool = False,
) -> Needs:
    """A model of equal layers."""

    def part(n: int, kv: int = 0) -> Part:
        return Part(n, kv, n if mapped else 0)

    return Needs(
        input=part(embedding),
        layers=(part(weights, kv_cell),) * n_layers,
        output=part(output),
        compute=compute,
    )


def params(**more: Any) -> ModelParameters:
    return ModelParameters(**{"parallel": 1, **more})


def make(
    devices: Sequence[DeviceInfo], /, *, n_ctx: int = 10, model: Needs | None = None, **more: Any
) -> Plan:
    """One session of 10 cells unless said otherwise."""
    return plan(model or needs(), devices, params(**more), n_ctx)
