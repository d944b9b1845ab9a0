"""Which tensors are experts, and which device the user's patterns give a tensor."""

from __future__ import annotations

import pytest

from engine.errors import ConfigError, DeviceError
from engine.model.overrides import EXPERTS, Overrides

DEVICES = ("CPU", "CUDA0", "CUDA1")


@pytest.mark.parametrize(
    ("name", "is_expert"),
    [
        ("blk.0.ffn_up_exps.weight", True),
        ("blk.12.ffn_gate_up_exps.weight", True),
        ("blk.3.ffn_down_exps.bias", True),
        ("blk.0.ffn_up.weight", False),
        ("blk.0.ffn_up_shexp.weight", False),
        ("blk.0.ffn_gate_inp.weight", False),
        ("blk.0.exp_probs_b.bias", False),
    ],
)
def test_experts_are_recognized_by_name(name: str, is_expert: bool) -> None:
    assert (EXPERTS.search(name) is not None) is is_expert


def test_first_matching_pattern_counts() -> None:
    overrides = Overrides([(r"blk\.[0-3]\.ffn_.*_exps", "cuda1"), ("exps", "CPU")], DEVICES)
    assert overrides.device_of("blk.2.ffn_up_exps.weight") == "CUDA1"
    assert overrides.device_of("blk.4.ffn_up_exps.weight") == "CPU"
    assert overrides.device_of("blk.4.attn_q.weight") is None


def test_contradictory_values_are_refused() -> None:
    with pytest.raises(DeviceError, match=r"CUDA2 is not one of the devices in use \(CPU, CUDA0, CUDA1\)"):
        Overrides([("exps", "CUDA2")], DEVICES)
    with pytest.raises(ConfigError, match=r"'\(exps' is not a regular expression"):
        Overrides([("(exps", "CPU")], DEVICES)


def test_a_pattern_without_a_match_is_reported() -> None:
    overrides = Overrides([("exps", "CPU"), (r"blk\.1\.", "CUDA0")], DEVICES)
    names = ["blk.1.ffn_up.weight", "output.weight"]
    assert overrides.idle(names) == [
        "override_tensor has no effect: 'exps' matches no tensor that can be moved"
    ]
    assert overrides.idle([*names, "blk.0.ffn_up_exps.weight"]) == []
