"""Generated ids: responses, blocks, items."""

from __future__ import annotations

import uuid


def new_id(prefix: str) -> str:
    """`prefix` and 24 random hexadecimal digits."""
    return prefix + uuid.uuid4().hex[:24]
