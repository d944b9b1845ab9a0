"""Traces: the span of a request continues its caller's, and its phases lie below it, in order."""

from __future__ import annotations

import asyncio
import sys
from itertools import pairwise

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from engine.errors import ConfigError
from server.metrics.traces import Traces
from support.api.http import COMPLETIONS, client
from support.fakes.engine import FakeEngine, make_app
from support.waiting import wait_until

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
HEADERS = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


def traced(engine):
    """The application, a stack of middleware being made at its first request, and what it exports."""
    exporter = InMemorySpanExporter()
    app = make_app(engine, otlp_traces_endpoint="http://localhost:1/v1/traces")
    app.state.ggserve.traces.close()
    traces = Traces("", exporter)
    for layer in app.user_middleware:
        if "traces" in layer.kwargs:
            layer.kwargs["traces"] = traces
    return app, traces, exporter


async def finished(traces, exporter):
    await asyncio.to_thread(traces.close)
    return exporter.get_finished_spans()


@pytest.mark.asyncio
async def test_a_request_continues_its_callers_trace_with_its_phases_in_order():
    app, traces, exporter = traced(FakeEngine(prefill_s=0.001))
    async with client(app) as http:
        await http.post(COMPLETIONS, json={"prompt": "Once upon a time"}, headers=HEADERS)
    *parts, span = await finished(traces, exporter)
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == PARENT
    assert span.name == f"POST {COMPLETIONS}"
    assert (span.attributes["http.response.status_code"], span.attributes["http.route"]) == (200, COMPLETIONS)
    assert [part.name for part in parts] == ["queue", "prefill", "decode"]
    assert {part.parent.span_id for part in parts} == {span.context.span_id}
    times = [time for part in parts for time in (part.start_time, part.end_time)]
    assert all(a <= b for a, b in pairwise([span.start_time, *times, span.end_time]))


@pytest.mark.asyncio
async def test_refused_requests_have_their_own_span_and_trace():
    app, traces, exporter = traced(FakeEngine())
    async with client(app) as http:
        await http.post(COMPLETIONS, json={"prompt": 7.5}, headers={"traceparent": "00-zz-1-01"})
    (span,) = await finished(traces, exporter)
    assert span.parent is None
    assert span.attributes["http.response.status_code"] == 400


@pytest.mark.asyncio
async def test_every_sequence_of_a_request_has_its_phases():
    app, traces, exporter = traced(FakeEngine())
    async with client(app) as http:
        await http.post(COMPLETIONS, json={"prompt": "Once", "n": 3, "temperature": 1})
    names = [span.name for span in await finished(traces, exporter)]
    assert names.count("decode") == names.count("queue") == 3


@pytest.mark.asyncio
async def test_disconnect_while_queued_ends_the_queue_span():
    engine = FakeEngine()
    engine.gate.clear()
    app, traces, exporter = traced(engine)
    async with client(app) as http:
        request = asyncio.create_task(http.post(COMPLETIONS, json={"prompt": "Once"}))
        while not engine.seen:
            await asyncio.sleep(0)
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
    wait_until(lambda: engine.left)
    assert [span.name for span in await finished(traces, exporter)] == ["queue", f"POST {COMPLETIONS}"]


def test_missing_extra_is_named_in_the_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(ConfigError, match=r"pip install ggserve\[otel\]"):
        Traces("http://localhost:1/v1/traces")
