"""A request for which a device had no room: 503 with a code of its own, and the next one is served."""

from __future__ import annotations

import pytest

from engine.types import FinishReason, StepOutput
from server.worker.requests.stream import Stream
from support.api.http import client, error_of
from support.fakes.engine import FakeEngine, make_app

pytestmark = pytest.mark.asyncio

SECRET = "CLBlast0 has no room for 1048576 bytes"


class FullOnce(FakeEngine):
    async def _run(self, stream: Stream) -> None:
        if len(self.seen) > 1:
            await super()._run(stream)
            return
        end = StepOutput(id=stream.request.id, finish=FinishReason.ERROR, error=SECRET, out_of_memory=True)
        stream.push(end)


@pytest.mark.parametrize("streaming", [False, True])
async def test_request_without_device_memory_fails_alone(streaming: bool) -> None:
    body = {"prompt": "Once", "stream": streaming}
    async with client(make_app({"stories": FullOnce()})) as http:
        failed = await http.post("/v1/completions", json=body)
        after = await http.post("/v1/completions", json=body)
        health = await http.get("/health")
    error = error_of(failed, 503)
    assert error["code"] == "out_of_memory"
    assert "batch_size" in error["message"]
    assert SECRET not in failed.text
    assert failed.headers["x-should-retry"] == "false"
    assert (after.status_code, health.status_code) == (200, 200)
