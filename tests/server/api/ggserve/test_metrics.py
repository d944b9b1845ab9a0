"""GET /metrics."""

from __future__ import annotations

import pytest

from server.metrics.prometheus import CONTENT_TYPE
from support.api.http import client, error_of
from support.fakes.engine import make_app

pytestmark = pytest.mark.asyncio


async def test_metrics_are_prometheus_text_with_the_start_time() -> None:
    app = make_app()
    async with client(app) as http:
        response = await http.get("/metrics")
    assert response.headers["content-type"] == CONTENT_TYPE
    assert response.headers["process-start-time-unix"] == str(int(app.state.ggserve.started))
    assert "\nggserve_" in response.text
    assert "\nllamacpp:" in response.text


async def test_metrics_turned_off_answer_501_naming_the_option() -> None:
    async with client(make_app(no_metrics=True)) as http:
        error = error_of(await http.get("/metrics"), 501)
    assert error["code"] == "not_supported"
    assert "--no-metrics" in error["message"]
