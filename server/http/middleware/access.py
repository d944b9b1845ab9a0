"""Who may call which route: everyone, any client with a key, or an administrator.

A route that is not listed here needs a key. tests/server/http/middleware/test_access.py lists the decision
for every route, and fails for a route without one.
"""

from __future__ import annotations

from enum import StrEnum

from starlette.routing import compile_path


class Access(StrEnum):
    """What a request needs if the server has API keys."""

    PUBLIC = "public"
    KEY = "key"  # any key; the client sees its own requests and stored objects only
    ADMIN = "admin"  # a key with the role admin


# The page's files and /health tell nothing about clients.
_PUBLIC = ("/", "/docs", "/redoc", "/health", "/v1/health", "/page/{path:path}")
# What changes a model or the server for all clients, or touches files.
_ADMIN = (
    "POST /slots/{id_slot}",
    "POST /lora-adapters",
    "POST /api/pull",
    "DELETE /api/delete",
    "POST /v1/models/load",
    "POST /v1/models/unload",
    "POST /models/load",
    "POST /models/unload",
)

_public = [compile_path(path)[0] for path in _PUBLIC]
_admin = [(method, compile_path(path)[0]) for method, path in (entry.split(" ") for entry in _ADMIN)]


def required_access(method: str, path: str) -> Access:
    """What a request needs. Paths are matched as the router matches them."""
    if any(pattern.match(path) for pattern in _public):
        return Access.PUBLIC
    if any(method == name and pattern.match(path) for name, pattern in _admin):
        return Access.ADMIN
    return Access.KEY
