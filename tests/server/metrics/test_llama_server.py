"""/metrics by llama-server's names."""

from __future__ import annotations

import pytest

from engine.types import Timings
from server.metrics.llama_server import LlamaMetrics
from server.metrics.prometheus import Metrics
from support.api.http import COMPLETIONS, client
from support.fakes.engine import FakeEngine, make_app


def read(text):
    """Name → (type, value); every one has a help line and no labels."""
    lines = text.splitlines()
    kinds = {line.split()[2]: line.split()[3] for line in lines if line.startswith("# TYPE llamacpp:")}
    helped = {line.split()[2] for line in lines if line.startswith("# HELP llamacpp:")}
    collected = {}
    for line in lines:
        if line.startswith("llamacpp:"):
            name, value = line.split(" ")
            collected[name.removeprefix("llamacpp:")] = (kinds[name], float(value))
            assert name in helped
    return collected


def counters(steps: float, **others: float):
    """Of all engines, by name."""
    return lambda name: {"steps": steps, **others}.get(name, 0)


def test_drafts_are_counted_without_adding_sequences():
    metrics = LlamaMetrics()
    metrics.add(Timings(predicted_n=40, predicted_ms=1000.0))
    content = read(metrics.render({}, counters(10, drafts=8, draft_tokens=60, draft_accepted_tokens=30)))
    assert content["spec_decode_num_drafts_total"] == ("counter", 8)
    assert content["spec_decode_num_draft_tokens_total"] == ("counter", 60)
    assert content["spec_decode_num_accepted_tokens_total"] == ("counter", 30)
    assert content["n_busy_slots_per_decode"] == ("gauge", 1)


@pytest.mark.asyncio
async def test_totals_equal_the_sum_of_timings():
    engines = {name: FakeEngine(name=name, cached_n=1) for name in ("a", "b")}
    async with client(make_app(engines)) as http:
        engines["a"].stats.steps, engines["b"].stats.steps = 20, 4
        engines["a"].stats.waiting = 2
        costs = []
        for body in ({"prompt": "Once", "model": "a"}, {"prompt": "x y", "max_tokens": 3, "model": "b"}):
            costs.append((await http.post(COMPLETIONS, json=body)).json()["timings"])
        response = await http.get("/metrics")
    content = read(response.text)
    for name, cost in (
        ("prompt_tokens_total", "prompt_n"),
        ("prompt_tokens_cached_total", "cached_n"),
        ("tokens_predicted_total", "predicted_n"),
    ):
        assert content[name] == ("counter", sum(c[cost] for c in costs))
    assert content["n_decode_total"] == ("counter", 24)
    assert content["requests_deferred"] == ("gauge", 2)
    assert content["requests_processing"] == ("gauge", 0)
    assert content["n_tokens_max"][1] == max(c["prompt_n"] + c["cached_n"] + c["predicted_n"] for c in costs)
    assert int(response.headers["process-start-time-unix"]) > 0


def test_embeddings_count_as_prompts_and_batches():
    metrics = Metrics({"bert": FakeEngine(name="bert")})
    metrics.of("bert").embedded(12, 2)
    content = read(metrics.render().decode())
    assert (content["prompt_tokens_total"][1], content["n_decode_total"][1]) == (12, 2)
    assert content["tokens_predicted_total"][1] == 0


def test_speeds_are_those_since_the_last_scrape():
    metrics = LlamaMetrics()
    assert read(metrics.render({}, counters(0)))["predicted_tokens_seconds"] == ("gauge", 0)
    metrics.add(Timings(prompt_n=100, prompt_ms=500.0, predicted_n=20, predicted_ms=1000.0))
    content = read(metrics.render({}, counters(10)))
    assert content["prompt_tokens_seconds"] == ("gauge", 200)
    assert content["predicted_tokens_seconds"] == ("gauge", 20)
    assert content["n_busy_slots_per_decode"] == ("gauge", 2)
    metrics.add(Timings(predicted_n=10, predicted_ms=2000.0))
    content = read(metrics.render({}, counters(20)))
    assert content["prompt_tokens_seconds"] == ("gauge", 0)
    assert content["predicted_tokens_seconds"] == ("gauge", 5)
    assert content["tokens_predicted_total"] == ("counter", 30)
