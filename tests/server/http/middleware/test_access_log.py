"""The log line of requests whose response was cut off."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from server.errors import CLIENT_TOO_SLOW
from server.http.middleware.access_log import AccessLog
from support.fakes.engine import make_app

pytestmark = pytest.mark.asyncio


class NoMetrics:
    def request(self, *_: object) -> None:
        pass


async def line_after(error: str | None, caplog) -> dict[str, Any]:
    """The fields that are logged when a response fails after its status line."""
    caplog.set_level(logging.INFO, "ggserve.access")

    async def app(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        scope["ggserve.record"].error = error
        raise RuntimeError("the connection was cut")

    async def send(message) -> None:
        pass

    scope = {"type": "http", "method": "GET", "path": "/x", "headers": [], "app": make_app()}
    try:
        await AccessLog(app, NoMetrics())(scope, None, send)
    except RuntimeError:
        assert error is None
    (record,) = [record for record in caplog.records if record.name == "ggserve.access"]
    return record.fields


async def levels(path: str, status: int, caplog) -> list[int]:
    """The levels at which a request is logged."""
    caplog.set_level(logging.DEBUG, "ggserve.access")

    async def app(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})

    async def send(message) -> None:
        pass

    scope = {"type": "http", "method": "GET", "path": path, "headers": [], "app": make_app()}
    await AccessLog(app, NoMetrics())(scope, None, send)
    return [record.levelno for record in caplog.records if record.name == "ggserve.access"]


@pytest.mark.parametrize(
    ("path", "status", "level"),
    [
        ("/page/scripts/main.js", 200, logging.DEBUG),
        ("/page/scripts/main.js", 304, logging.DEBUG),
        ("/page/x", 404, logging.INFO),
        ("/v1/models", 200, logging.INFO),
    ],
)
async def test_files_of_the_web_page_are_logged_at_a_lower_level(path, status, level, caplog):
    assert await levels(path, status, caplog) == [level]


async def test_a_client_that_was_too_slow_is_not_a_server_error(caplog):
    fields = await line_after(CLIENT_TOO_SLOW, caplog)
    assert (fields["status"], fields["error"]) == (499, "client_too_slow")
    assert "Traceback" not in caplog.text


async def test_response_that_fails_half_way_is_not_logged_as_200(caplog):
    fields = await line_after(None, caplog)
    assert (fields["status"], fields["error"]) == (500, "internal_error")
