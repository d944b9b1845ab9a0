"""What clients may know of a model, and in which words."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from server.api.common.replies.model_info import (
    capabilities,
    header_capabilities,
    parameter_size,
    public_info,
)

PLAIN: Any = SimpleNamespace(fim_pre_id=None, fim_suf_id=None, fim_mid_id=None)
FILLING: Any = SimpleNamespace(fim_pre_id=1, fim_suf_id=2, fim_mid_id=3)


def test_public_info_has_no_paths() -> None:
    assert public_info({"path": "/secret", "file": "/secret", "n_ctx": 5}) == {"n_ctx": 5}


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1K"),
        (134_515_008, "134.5M"),
        (7_248_023_552, "7.248B"),
        (10**12, "1T"),
    ],
)
def test_parameter_size_is_in_the_largest_unit(n: int, text: str) -> None:
    assert parameter_size(n) == text


def test_capabilities_follow_the_model_and_its_vocabulary() -> None:
    assert capabilities({}, PLAIN, None) == ["completion"]
    assert capabilities({"generates": True}, FILLING, None) == ["completion", "insert"]
    assert capabilities({"generates": False}, PLAIN, None) == ["embedding"]


def test_header_capabilities_follow_the_file_header() -> None:
    assert header_capabilities({}) == []
    assert header_capabilities({"generates": False, "takes_tools": False}) == ["embedding"]
    assert header_capabilities({"generates": True, "takes_tools": False}) == ["completion"]
    assert header_capabilities({"generates": True, "takes_tools": True}) == ["completion", "tools"]
