"""The limits of each API key: requests and tokens per minute, concurrent requests.

Requests that read or cancel are free, so that a client at its limit can still see and end its requests.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from server.errors import rate_limited
from server.http.middleware.limits import CLOSE, refuse
from server.keys.usage import BucketState, ClientUsage, LimitReached

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from server.keys.client import Client

HEADERS = tuple(
    f"x-ratelimit-{what}-{unit}"
    for unit in ("requests", "tokens")
    for what in ("limit", "remaining", "reset")
)


class ClientLimits:
    """ASGI middleware after `Auth`. Responses report what is left, in OpenAI's headers."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client: Client | None = scope.get("ggserve.client")
        if client is None or not _counts(scope):
            await self.app(scope, receive, send)
            return
        usage = client.usage

        async def send_with_limits(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *limit_headers(usage)]
            await send(message)

        try:
            usage.admit()
        except LimitReached as limit:
            error = rate_limited(str(limit), limit.retry_after_s, CLOSE)
            await refuse(error, scope, receive, send_with_limits)
            return
        try:
            await self.app(scope, receive, send_with_limits if usage.has_rates else send)
        finally:
            usage.leave()


def _counts(scope: Scope) -> bool:
    return scope["method"] == "POST" and not scope["path"].endswith("/cancel")


def limit_headers(usage: ClientUsage) -> list[tuple[bytes, bytes]]:
    """The headers of the limits that the client has."""
    headers = []
    for unit, bucket in (("requests", usage.requests), ("tokens", usage.tokens)):
        if bucket is not None:
            state: BucketState = bucket.state()
            values = (str(state.limit), str(state.remaining), duration(state.reset_s))
            for what, value in zip(("limit", "remaining", "reset"), values, strict=True):
                headers.append((f"x-ratelimit-{what}-{unit}".encode(), value.encode()))
    return headers


def duration(seconds: float) -> str:
    """A duration in OpenAI's format: 250ms, 12s, 6m0s, 1h2m3s."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    whole = math.ceil(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    text = f"{hours}h" if hours else ""
    return text + (f"{minutes}m" if hours or minutes else "") + f"{whole % 60}s"
