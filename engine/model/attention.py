"""The kind of attention of each layer, and whether its device can store the KV cache."""

from __future__ import annotations

from typing import Any, Literal

from engine.config import ModelParameters
from engine.errors import ConfigError, DeviceError
from engine.ggml.backend import Device
from engine.ggml.operations import Context
from engine.ggml.tensor import F16, F32, I64, runs_on, type_id
from engine.graph.forward_context import MASK_PAD
from engine.hparams import HParams
from engine.model import rpc

AttentionKind = Literal["paged", "flash", "explicit", "none"]


def best_attention(device: Device, hp: HParams, layer: int, params: ModelParameters) -> AttentionKind:
    """Our paged kernel on the CPU, else ggml's flash attention if available, else explicit products.

    "none" for a layer without attention.
    """
    if not hp.attends(layer):
        return "none"
    choice = params.flash_attn
    if choice == "auto" and device.type == "cpu":
        return "paged"
    if choice != "off" and _has_flash_attention(device, hp, layer, params):
        return "flash"
    return "explicit"


def required_attention(device: Device, hp: HParams, layer: int, params: ModelParameters) -> AttentionKind:
    """The same. Raises DeviceError or ConfigError if the device lacks what the parameters require."""
    kind = best_attention(device, hp, layer, params)
    if kind != "explicit":
        return kind
    if params.flash_attn == "on":
        raise DeviceError(
            f"device {device.name} has no flash attention for this model; use --flash-attn auto"
        )
    if params.kv_type not in ("f16", "f32", "bf16"):
        raise ConfigError(
            f"kv_type {params.kv_type} needs flash attention, which {device.name} lacks or is off"
        )
    return kind


def check_stores_cache(device: Device, hp: HParams, kv_type: str) -> None:
    """Raises ConfigError if the device cannot store keys and values in the cache's type."""
    ctx: Any = Context(8)
    width = max(hp.dims(i)[0] * heads for i, heads in enumerate(hp.n_head_kv))
    if not width:
        return
    table = ctx.new(type_id(kv_type), (width, MASK_PAD))
    stored = ctx.set_rows(table, ctx.new(F32, (width, 1)), ctx.new(I64, (1,)))
    if not runs_on(device, stored):
        raise ConfigError(f"{device.name} cannot store a cache of --kv-type {kv_type}; use f16")


def _has_flash_attention(device: Device, hp: HParams, layer: int, params: ModelParameters) -> bool:
    dk, dv = hp.dims(layer)
    if params.flash_attn == "auto" and device.backend == "RPC":
        return rpc.supports_flash_attention(dk, dv)
    ctx: Any = Context(8)
    kv_type, kv_heads = type_id(params.kv_type), hp.n_head_kv[layer]
    k = ctx.new(kv_type, (dk, MASK_PAD, kv_heads))
    v = ctx.new(kv_type, (dv, MASK_PAD, kv_heads))
    q, mask = ctx.new(F32, (dk, 1, hp.n_head[layer])), ctx.new(F16, (MASK_PAD, 1))
    return bool(runs_on(device, ctx.flash_attention(q, k, v, mask, 1.0)))
