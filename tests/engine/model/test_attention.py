"""Which attention a layer gets by what its device and the parameters allow."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from engine.config import ModelParameters
from engine.errors import ConfigError, DeviceError
from engine.model import attention as subject
from engine.model.attention import best_attention, check_stores_cache, required_attention
from support.builders.hparams import hparams
from support.references.calculator import CPU

HP = hparams(head_dim_k=64, head_dim_v=64)
GPU: Any = SimpleNamespace(type="gpu", name="GPU0", backend="Some")


@pytest.fixture(params=[True, False], ids=["has flash", "lacks flash"])
def flash(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether devices support flash attention, as the fixture has it."""
    monkeypatch.setattr(subject, "runs_on", lambda device, tensor: request.param)
    return bool(request.param)


@pytest.mark.parametrize(
    ("device", "choice", "with_flash", "without"),
    [
        (CPU, "auto", "paged", "paged"),
        (CPU, "on", "flash", "explicit"),
        (CPU, "off", "explicit", "explicit"),
        (GPU, "auto", "flash", "explicit"),
        (GPU, "on", "flash", "explicit"),
        (GPU, "off", "explicit", "explicit"),
    ],
)
def test_best_attention_depends_on_device_and_option(
    device: Any, choice: Any, with_flash: str, without: str, flash: bool
) -> None:
    params = ModelParameters(flash_attn=choice)
    assert best_attention(device, HP, 0, params) == (with_flash if flash else without)


@pytest.mark.parametrize(("choice", "kind"), [("auto", "explicit"), ("on", "flash")])
def test_best_attention_of_a_remote_device_is_not_what_its_client_claims(
    choice: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ggml's client claims every operation; whoever insists gets what was claimed."""
    monkeypatch.setattr(subject, "runs_on", lambda device, tensor: True)
    monkeypatch.setattr(subject.rpc, "supports_flash_attention", lambda k, v: False)
    remote: Any = SimpleNamespace(type="gpu", name="RPC0", backend="RPC")
    assert best_attention(remote, HP, 0, ModelParameters(flash_attn=choice)) == kind


def test_required_attention_without_flash_refuses_what_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "runs_on", lambda device, tensor: False)
    with pytest.raises(DeviceError, match="device GPU0 has no flash attention for this model"):
        required_attention(GPU, HP, 0, ModelParameters(flash_attn="on"))
    with pytest.raises(ConfigError, match="kv_type q8_0 needs flash attention, which GPU0 lacks"):
        required_attention(GPU, HP, 0, ModelParameters(kv_type="q8_0"))
    assert required_attention(GPU, HP, 0, ModelParameters(kv_type="bf16")) == "explicit"


@pytest.mark.parametrize("kv_type", ["f16", "q8_0", "q4_0"])
def test_check_stores_cache_accepts_types_that_the_cpu_can_write(kv_type: str) -> None:
    check_stores_cache(CPU, HP, kv_type)


def test_check_stores_cache_names_device_and_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "runs_on", lambda device, tensor: False)
    with pytest.raises(ConfigError, match="GPU0 cannot store a cache of --kv-type q4_0; use f16"):
        check_stores_cache(GPU, HP, "q4_0")
