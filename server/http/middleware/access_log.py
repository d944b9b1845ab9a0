"""The outermost middleware: a request id, one log line per request, and no escaping exceptions."""

from __future__ import annotations

import logging
import re
import time
import uuid
from typing import TYPE_CHECKING

from server.errors import CLIENT_TOO_SLOW, ClientLeft, error_format, internal_error
from server.generation.request_context import AccessRecord

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from server.metrics.prometheus import Metrics
    from server.metrics.traces import Traces

log = logging.getLogger("ggserve.access")
_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")  # anything else could forge log lines or headers


class AccessLog:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, metrics: Metrics, traces: Traces | None = None) -> None:
        self.app, self.metrics, self.traces = app, metrics, traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        client_id = next((v for k, v in scope["headers"] if k == b"x-request-id"), b"").decode("latin-1")
        request_id = client_id if _ID.fullmatch(client_id) else uuid.uuid4().hex
        record = scope["ggserve.record"] = AccessRecord(request_id)
        id_headers = [(b"x-request-id", request_id.encode())]
        if (header := error_format(scope).id_header) is not None:
            id_headers.append((header, request_id.encode()))

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                message["headers"] = [*message.get("headers", ()), *id_headers]
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except ClientLeft:
            record.status = 499
        except Exception:
            if record.error == CLIENT_TOO_SLOW:  # it failed because the connection was cut
                record.status = 499
                return
            logging.getLogger("ggserve").exception("request %s failed", request_id)
            record.error = "internal_error"
            if record.status:
                record.status = 500  # in the log
                raise  # too late for a status: the server must cut the connection
            await internal_error(request_id).response(scope)(scope, receive, send_with_id)
        finally:
            for lease in record.leases:
                scope["app"].state.ggserve.registry.release(lease)
            self._write(scope, record)

    def _write(self, scope: Scope, record: AccessRecord) -> None:
        ms = (time.monotonic() - record.started) * 1000
        route = getattr(scope.get("route"), "path", None) or "other"
        status = record.status or 499
        self.metrics.request(route, scope["method"], status)
        client = scope.get("client")
        fields = {
            "request_id": record.id,
            "client": client[0] if client else None,
            "method": scope["method"],
            "path": scope["path"][:200],
            "status": status,
            "ms": round(ms, 1),
            **record.fields(),
        }
        # repr of strings: a path may hold line breaks.
        text = " ".join(
            f"{k}={v if isinstance(v, int | float) else ascii(v)[1:-1]}" for k, v in fields.items()
        )
        if self.traces is not None:
            self._trace(scope, record, route, status)
        # The web page consists of dozens of files; they would drown the rest.
        quiet = scope["path"].startswith("/page/") and status < 400
        log.log(logging.DEBUG if quiet else logging.INFO, "%s", text, extra={"fields": fields})

    def _trace(self, scope: Scope, record: AccessRecord, route: str, status: int) -> None:
        assert self.traces is not None
        names = (b"traceparent", b"tracestate")
        headers = {k.decode(): v.decode("latin-1") for k, v in scope["headers"] if k in names}
        attributes = {
            "http.request.method": scope["method"],
            "http.route": route,
            "http.response.status_code": status,
            **{f"ggserve.{name}": value for name, value in record.fields().items()},
        }
        span = (f"{scope['method']} {route}", record.started, time.monotonic(), attributes)
        try:
            self.traces.request(headers, span, record.phases)
        except Exception:
            logging.getLogger("ggserve").exception("request %s could not be traced", record.id)
