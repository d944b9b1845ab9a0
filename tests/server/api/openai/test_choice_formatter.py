"""`system_fingerprint` differs exactly where the same seed may give another text."""

from __future__ import annotations

import re
from typing import Any

import pytest

from server.api.openai.choice_formatter import fingerprint

INFO: dict[str, Any] = {
    "architecture": "llama",
    "n_params": 15,
    "size_bytes": 60,
    "n_ctx": 512,
    "kv_type": "f16",
    "placement": {"CPU": [0, 1]},
    "attention": "auto",
    "path": "/models/a.gguf",
}


def test_fingerprint_has_the_form_of_llama_servers() -> None:
    assert re.fullmatch("b[0-9a-f]{10}", fingerprint(INFO))
    assert re.fullmatch("b[0-9a-f]{10}", fingerprint(None))


@pytest.mark.parametrize("name", [name for name in INFO if name != "path"])
def test_fingerprint_of_another_computation_differs(name: str) -> None:
    assert fingerprint({**INFO, name: "other"}) != fingerprint(INFO)


def test_fingerprint_of_the_same_model_at_another_path_is_equal() -> None:
    assert fingerprint({**INFO, "path": "/models/b.gguf"}) == fingerprint(INFO)
