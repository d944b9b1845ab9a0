"""What clients may know of a model's description."""

from __future__ import annotations

from typing import Any


def public_info(info: dict[str, Any]) -> dict[str, Any]:
    """Everything but paths, which clients that only ask for text need not see."""
    return {key: value for key, value in info.items() if key not in ("path", "file")}
