"""GET /metrics."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from server.metrics.prometheus import Metrics
from support.api.http import COMPLETIONS, client, events
from support.fakes.engine import FakeEngine, make_app, serving
from support.waiting import until

pytestmark = pytest.mark.asyncio


async def scrape(http) -> dict[str, float]:
    """Sample name, with its labels but the model's → value."""
    response = await http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    collected = {}
    for family in text_string_to_metric_families(response.text):
        for sample in family.samples:
            labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()) if k != "model")
            collected[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return collected


async def test_totals_equal_the_sum_of_usage():
    async with client(FakeEngine(cached_n=1)) as http:
        usages = []
        for body in (
            {"prompt": "Once"},
            {"prompt": ["Once", [5, 6]], "n": 2},
            {"prompt": "x", "max_tokens": 2},
        ):
            usages.append((await http.post(COMPLETIONS, json=body)).json()["usage"])
            options = {"stream": True, "stream_options": {"include_usage": True}}
            usages.append(events((await http.post(COMPLETIONS, json={**body, **options})).text)[-1]["usage"])
        metrics = await scrape(http)
    assert metrics["ggserve_prompt_tokens_total"] == sum(u["prompt_tokens"] for u in usages)
    assert metrics["ggserve_predicted_tokens_total"] == sum(u["completion_tokens"] for u in usages)
    assert metrics["ggserve_cached_tokens_total"] == sum(
        u["prompt_tokens_details"]["cached_tokens"] for u in usages
    )
    assert metrics["ggserve_requests_total{method=POST,route=/v1/completions,status=200}"] == 6
    assert metrics["ggserve_first_token_seconds_count"] == 12
    n_generated = sum(u["completion_tokens"] for u in usages)
    assert metrics["ggserve_token_gap_seconds_count"] == n_generated - 12


async def test_requests_are_counted_by_route_and_status():
    async with client() as http:
        await http.get("/some/path")
        await http.get("/another/path")
        await http.get("/v1/models/nothing")
        await http.request("BREW", "/health", content=b"x")
        await http.post(COMPLETIONS, json={})
        metrics = await scrape(http)
    assert metrics["ggserve_requests_total{method=GET,route=other,status=404}"] == 2
    assert metrics["ggserve_requests_total{method=GET,route=/v1/models/{id:path},status=404}"] == 1
    assert metrics["ggserve_requests_total{method=other,route=/health,status=405}"] == 1
    assert metrics["ggserve_requests_total{method=POST,route=/v1/completions,status=400}"] == 1


async def test_engine_numbers_are_exported_and_continue_over_restarts():
    engine = FakeEngine()
    async with client(engine) as http:
        engine.stats.running, engine.stats.waiting = 3, 2
        engine.stats.cells_used, engine.stats.cells_cached = 100, 50
        engine.stats.window_rows_total, engine.stats.window_rows_used = 1024, 600
        engine.stats.window_rows_cached = 300
        engine.stats.steps, engine.stats.preemptions = 1000, 4
        engine.stats.draft_tokens, engine.stats.draft_accepted_tokens = 70, 60
        metrics = await scrape(http)
        assert metrics["ggserve_running"] == 3
        assert metrics["ggserve_waiting"] == 2
        assert metrics["ggserve_cells_total"] == 4096
        assert metrics["ggserve_cells_used"] == 100
        assert metrics["ggserve_cells_cached"] == 50
        rows = [metrics[f"ggserve_window_rows_{name}"] for name in ("total", "used", "cached")]
        assert rows == [1024, 600, 300]
        assert metrics["ggserve_steps_total"] == 1000
        assert metrics["ggserve_draft_tokens_total"] == 70
        assert metrics["ggserve_draft_accepted_tokens_total"] == 60
        assert metrics["ggserve_engine_ready"] == 1
        engine.stats.steps, engine.stats.running, engine.restarts = 10, 0, 1  # a new process counts anew
        engine.state = "restarting"
        metrics = await scrape(http)
        assert metrics["ggserve_steps_total"] == 1010
        assert metrics["ggserve_running"] == 0
        assert metrics["ggserve_engine_restarts_total"] == 1
        assert metrics["ggserve_engine_ready"] == 0
        engine.stats.steps = 30
        assert (await scrape(http))["ggserve_steps_total"] == 1030


async def test_disconnected_clients_are_counted_and_leave_nothing_running():
    engine = FakeEngine(delay_s=0.02)
    engine.gate.clear()
    app = make_app(engine)
    with serving(app) as base:
        async with httpx.AsyncClient(base_url=base, timeout=60) as hasty:
            requests = [
                asyncio.create_task(hasty.post(COMPLETIONS, json={"prompt": "Once", "stream": i % 2 == 0}))
                for i in range(40)
            ]
            await until(lambda: len(engine.seen) == 40)
            for request in requests:
                request.cancel()
            await asyncio.gather(*requests, return_exceptions=True)
        await until(lambda: not engine.requests())
        engine.gate.set()
        async with httpx.AsyncClient(base_url=base) as http:
            done = await http.post(COMPLETIONS, json={"prompt": "Once"})
            assert done.status_code == 200
            await until(lambda: not engine.requests() and not app.state.ggserve.jobs)
            metrics = await scrape(http)
            assert metrics["ggserve_running"] == 0
            assert metrics["ggserve_requests_total{method=POST,route=/v1/completions,status=499}"] > 0
            assert (await http.get("/v1/requests")).json()["data"] == []
            assert engine.requests() == []


@pytest.mark.asyncio
async def test_time_in_queue_and_prefill_is_observed_once_for_each_sequence():
    async with client(FakeEngine()) as http:
        await http.post(COMPLETIONS, json={"prompt": "Once", "n": 2, "temperature": 1})
        text = (await http.get("/metrics")).text
    assert 'ggserve_queue_seconds_count{model="stories"} 2.0' in text
    assert 'ggserve_queue_seconds_sum{model="stories"} 0.002' in text
    assert 'ggserve_prefill_seconds_sum{model="stories"} 0.004' in text


async def test_missed_tokens_are_counted_by_reason_over_restarts_of_the_engine():
    engine = FakeEngine()
    metrics = Metrics({"m": engine})
    for missed in ({"new": 5, "evicted": 2}, {"new": 1}):
        engine.stats.missed_tokens = missed
        text = metrics.render().decode()
    assert 'ggserve_prefix_missed_tokens_total{model="m",reason="new"} 6.0' in text
    assert 'ggserve_prefix_missed_tokens_total{model="m",reason="evicted"} 2.0' in text
