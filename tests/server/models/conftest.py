"""A Hub with a few repositories, and the client library pointed at it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.fakes.hub import FakeHub, Repo, fake_hub, use_hub

DATA = bytes(range(256)) * 4096  # 1 MiB


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    repos = {
        "me/Plain-GGUF": Repo(
            {
                "README.md": b"# Plain",
                "plain-Q4_K_M.gguf": b"four" + DATA,
                "plain-Q8_0.gguf": b"eight" + DATA + DATA,
                "mmproj-plain-f16.gguf": b"eyes",
            }
        ),
        "me/Parts-GGUF": Repo(
            {f"Q5_K_M/parts-Q5_K_M-0000{n}-of-00003.gguf": b"%d" % n + DATA for n in (1, 2, 3)}
        ),
        "me/Gated-GGUF": Repo({"gated-Q4_K_M.gguf": DATA}, gated=True),
        "me/Damaged-GGUF": Repo({"damaged-Q4_K_M.gguf": DATA}, damaged=frozenset({"damaged-Q4_K_M.gguf"})),
        "me/Weights": Repo({"model.safetensors": DATA}),
    }
    with fake_hub(repos) as server:
        use_hub(server.url, tmp_path / "hub", monkeypatch)
        yield server
