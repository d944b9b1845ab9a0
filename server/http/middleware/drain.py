"""While the server drains, new requests are refused and running ones are not affected."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from server.errors import ApiError
from server.http.middleware.limits import refuse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

_ANSWERED = ("/health", "/v1/health", "/metrics")
RETRY_AFTER_S = 5


class Drain:
    """ASGI middleware. `stopping`: returns whether the server drains.

    Health and metrics are still answered, and requests can be cancelled.
    """

    def __init__(self, app: ASGIApp, stopping: Callable[[], bool]) -> None:
        self.app, self.stopping = app, stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self.stopping() and not _is_answered(scope):
            message = "the server is shutting down; retry, on another server if there is one"
            headers = {"connection": "close"}  # also because the body is not read
            error = ApiError(503, message, code="shutting_down", retry_after=RETRY_AFTER_S, headers=headers)
            await refuse(error, scope, receive, send)
        else:
            await self.app(scope, receive, send)


def _is_answered(scope: Scope) -> bool:
    path: str = scope["path"]
    return path in _ANSWERED or path.startswith("/v1/requests") or path.endswith("/cancel")
