"""The first byte of what the rendering process answers. Apart, since the server imports no Jinja."""

from __future__ import annotations

RENDERED, FAILED = b"r", b"f"  # before the text; before the reason
