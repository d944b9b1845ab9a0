"""Prometheus metrics, in a registry of our own. What engines count is read when somebody asks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from engine.types import Timings
from server.metrics.llama_server import LlamaMetrics

if TYPE_CHECKING:
    from server.dependencies import Engine

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_FIRST = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_GAP = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)

_GAUGES = {
    "running": "Sessions that hold a place in the batch",
    "waiting": "Requests in the queue",
    "cells_total": "Cells of the KV pool",
    "cells_used": "Cells held by running sessions",
    "cells_cached": "Cells held only by the prefix cache",
}
_COUNTERS = {
    "steps": "Batches computed",
    "preemptions": "Sessions put back into the queue for want of cells",
    "evicted_cells": "Cells taken from the prefix cache",
    "compute_ms": "Milliseconds inside ggml",
    "step_ms": "Milliseconds of whole steps",
}


class ModelMetrics:
    """The children of one model, bound once: labels() is too slow to call per token."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self.first = metrics.first.labels(model).observe
        self.gap = metrics.gap.labels(model).observe
        self.rejected = metrics.rejected.labels(model).inc
        self._prompt = metrics.prompt.labels(model)
        self._cached = metrics.cached.labels(model)
        self._predicted = metrics.predicted.labels(model)
        self._llama = metrics.llama

    def cost(self, timings: Timings) -> None:
        """What one sequence took."""
        self._llama.cost(timings)

    def embedded(self, n_tokens: int, batches: int) -> None:
        """Inputs of embeddings."""
        self.tokens(n_tokens, 0, 0)
        self._llama.cost(Timings(prompt_n=n_tokens))
        self._llama.batches += batches

    def tokens(self, prompt: int, cached: int, predicted: int) -> None:
        """What the usage of one request said."""
        self._prompt.inc(prompt)
        self._cached.inc(cached)
        self._predicted.inc(predicted)


class Metrics:
    """All metrics of one application."""

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        self.registry = CollectorRegistry()
        model = ["model"]
        self.requests = Counter(
            "ggserve_requests", "Requests answered", ["route", "method", "status"], registry=self.registry
        )
        self.prompt = Counter("ggserve_prompt_tokens", "Tokens of prompts", model, registry=self.registry)
        self.cached = Counter(
            "ggserve_cached_tokens", "Of these, found in the prefix cache", model, registry=self.registry
        )
        self.predicted = Counter(
            "ggserve_predicted_tokens", "Tokens generated", model, registry=self.registry
        )
        self.rejected = Counter(
            "ggserve_queue_rejections",
            "Requests refused since the queue was full",
            model,
            registry=self.registry,
        )
        self.first = Histogram(
            "ggserve_first_token_seconds",
            "From the request to its first token",
            model,
            buckets=_FIRST,
            registry=self.registry,
        )
        self.gap = Histogram(
            "ggserve_token_gap_seconds",
            "Between tokens of a sequence",
            model,
            buckets=_GAP,
            registry=self.registry,
        )
        self.llama = LlamaMetrics()
        self._models = {name: ModelMetrics(self, name) for name in engines}
        self._engines = _Engines(engines)
        self.registry.register(self._engines)

    def of(self, model: str) -> ModelMetrics:
        return self._models[model]

    def request(self, route: str, method: str, status: int) -> None:
        # Methods are the client's words: unknown ones must not make new time series.
        known = method if method in ("GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH") else "other"
        self.requests.labels(route, known, str(status)).inc()

    def render(self) -> bytes:
        ours = generate_latest(self.registry)
        engines = self._engines
        return ours + self.llama.render(engines.engines, engines.total("steps")).encode()


class _Engines:
    """Collector over the engines' own numbers. Their counters begin anew with each process; ours do not."""

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        self.engines = engines
        self._last: dict[tuple[str, str], float] = {}
        self._base: dict[tuple[str, str], float] = {}

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        stats: dict[str, Any] = {name: engine.stats for name, engine in self.engines.items()}
        for name, text in _GAUGES.items():
            gauge = GaugeMetricFamily(f"ggserve_{name}", text, labels=["model"])
            for model, snapshot in stats.items():
                gauge.add_metric([model], getattr(snapshot, name))
            yield gauge
        for name, text in _COUNTERS.items():
            counter = CounterMetricFamily(f"ggserve_{name}", text, labels=["model"])
            for model, snapshot in stats.items():
                counter.add_metric([model], self._grown(model, name, getattr(snapshot, name)))
            yield counter
        restarts = CounterMetricFamily(
            "ggserve_engine_restarts", "Engine processes replaced", labels=["model"]
        )
        ready = GaugeMetricFamily("ggserve_engine_ready", "1: the model answers", labels=["model"])
        for model, engine in self.engines.items():
            restarts.add_metric([model], engine.restarts)
            ready.add_metric([model], float(engine.state == "ready" and not engine.stalled))
        yield restarts
        yield ready

    def total(self, name: str) -> float:
        """A counter, of all models."""
        return sum(self._grown(model, name, getattr(e.stats, name)) for model, e in self.engines.items())

    def _grown(self, model: str, name: str, value: float) -> float:
        key = (model, name)
        if value < self._last.get(key, 0.0):
            self._base[key] = self._base.get(key, 0.0) + self._last[key]
        self._last[key] = value
        return self._base.get(key, 0.0) + value
