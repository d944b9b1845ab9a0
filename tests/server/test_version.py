"""The version of the installed distribution."""

from __future__ import annotations

from importlib import metadata

import pytest

from server.version import version


def test_version_is_the_distributions_or_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    try:
        monkeypatch.setattr(metadata, "version", lambda name: f"{name} 1.2")
        version.cache_clear()
        assert version() == "ggserve 1.2"
        monkeypatch.setattr(metadata, "version", missing)
        version.cache_clear()
        assert version() == "(not installed)"
    finally:
        version.cache_clear()
