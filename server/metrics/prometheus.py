"""Prometheus metrics in a registry of the application. Engine counters are read at each scrape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from engine.types import Timings
from server.metrics.llama_server import LlamaMetrics

if TYPE_CHECKING:
    from server.worker.engine import Engine

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_FIRST_TOKEN_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_QUEUE_BUCKETS = (0.001, *_FIRST_TOKEN_BUCKETS)
_TOKEN_GAP_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)

_GAUGES = {
    "running": "Requests being processed (prefill or decode)",
    "waiting": "Requests waiting in the queue",
    "cells_total": "Size of the KV cache in cells (tokens)",
    "cells_used": "KV cache cells used by running requests",
    "cells_cached": "KV cache cells used only by the prefix cache",
    "window_rows_total": "KV cache rows (tokens) of layers that keep only a sliding window; 0: none",
    "window_rows_used": "Rows of layers with a window used by running requests",
    "window_rows_cached": "Rows of layers with a window used only by checkpoints",
}
_COUNTERS = {
    "steps": "Scheduler steps",
    "drafts": "Steps of a request with drafted tokens (speculative decoding)",
    "draft_tokens": "Drafted tokens",
    "draft_accepted_tokens": "Drafted tokens that became part of a text",
    "preemptions": "Requests preempted because the KV cache was full",
    "evicted_cells": "KV cache cells evicted from the prefix cache",
    "compute_ms": "Milliseconds spent computing in ggml",
    "step_ms": "Milliseconds spent in scheduler steps, ggml included",
}


class ModelMetrics:
    """The metrics of one model. Its labels are bound once: labels() is too slow to be called per token."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self.first = metrics.first.labels(model).observe
        self.gap = metrics.gap.labels(model).observe
        self.queue = metrics.queue.labels(model).observe
        self.prefill = metrics.prefill.labels(model).observe
        self.rejected = metrics.rejected.labels(model).inc
        self._prompt = metrics.prompt.labels(model)
        self._cached = metrics.cached.labels(model)
        self._predicted = metrics.predicted.labels(model)
        self._llama = metrics.llama

    def sequence_ended(self, timings: Timings) -> None:
        self._llama.add(timings)

    def embedded(self, n_tokens: int, batches: int) -> None:
        """Count the inputs of an embedding or rerank request, and the batches that they took."""
        self.tokens(n_tokens, 0, 0)
        self._llama.add(Timings(prompt_n=n_tokens))
        self._llama.batches += batches

    def tokens(self, prompt: int, cached: int, predicted: int) -> None:
        """Count the usage of one request."""
        self._prompt.inc(prompt)
        self._cached.inc(cached)
        self._predicted.inc(predicted)


class Metrics:
    """All metrics of one application."""

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        """engines: returns the engines that currently exist, by model."""
        self.registry = CollectorRegistry()
        model = ["model"]
        self.requests = Counter(
            "ggserve_requests",
            "HTTP requests answered",
            ["route", "method", "status"],
            registry=self.registry,
        )
        self.prompt = Counter("ggserve_prompt_tokens", "Prompt tokens", model, registry=self.registry)
        self.cached = Counter(
            "ggserve_cached_tokens",
            "Prompt tokens reused from the prefix cache",
            model,
            registry=self.registry,
        )
        self.predicted = Counter(
            "ggserve_predicted_tokens", "Generated tokens", model, registry=self.registry
        )
        self.rejected = Counter(
            "ggserve_queue_rejections",
            "Requests refused because the queue was full",
            model,
            registry=self.registry,
        )
        self.first = Histogram(
            "ggserve_first_token_seconds",
            "Seconds from the arrival of a request to its first token",
            model,
            buckets=_FIRST_TOKEN_BUCKETS,
            registry=self.registry,
        )
        self.gap = Histogram(
            "ggserve_token_gap_seconds",
            "Seconds between two tokens of a sequence",
            model,
            buckets=_TOKEN_GAP_BUCKETS,
            registry=self.registry,
        )
        self.queue = Histogram(
            "ggserve_queue_seconds",
            "Seconds that a sequence waited in the queue",
            model,
            buckets=_QUEUE_BUCKETS,
            registry=self.registry,
        )
        self.prefill = Histogram(
            "ggserve_prefill_seconds",
            "Seconds from the first batch of a sequence to its first token",
            model,
            buckets=_FIRST_TOKEN_BUCKETS,
            registry=self.registry,
        )
        self.llama = LlamaMetrics()
        self._models: dict[str, ModelMetrics] = {}
        self._engines = _EngineCollector(engines)
        self.registry.register(self._engines)
        for name in engines:
            self.of(name)

    def of(self, model: str) -> ModelMetrics:
        """The metrics of a model. model: the name of a served one."""
        if model not in self._models:
            self._models[model] = ModelMetrics(self, model)
        return self._models[model]

    def request(self, route: str, method: str, status: int) -> None:
        # A client may send any method; unknown ones must not create new time series.
        label = method if method in ("GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH") else "other"
        self.requests.labels(route, label, str(status)).inc()

    def render(self) -> bytes:
        """Both sets of metrics in text format."""
        ours = generate_latest(self.registry)
        engines = self._engines
        return ours + self.llama.render(engines.engines, engines.total).encode()


class _EngineCollector:
    """Reads the engines' statistics. Counters keep growing when an engine process is restarted."""

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        self.engines = engines
        self._last: dict[tuple[str, str], float] = {}
        self._base: dict[tuple[str, str], float] = {}
        self._reasons: dict[str, dict[str, None]] = {}  # of misses so far, by model

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
                counter.add_metric([model], self._monotonic(model, name, getattr(snapshot, name)))
            yield counter
        missed = CounterMetricFamily(
            "ggserve_prefix_missed_tokens",
            "Prompt tokens that were not found in the prefix cache",
            labels=["model", "reason"],
        )
        for model, snapshot in stats.items():
            reasons = self._reasons.setdefault(model, {})
            reasons |= dict.fromkeys(snapshot.missed_tokens)
            for reason in reasons:
                n = snapshot.missed_tokens.get(reason, 0)
                missed.add_metric([model, reason], self._monotonic(model, f"missed {reason}", n))
        yield missed
        restarts = CounterMetricFamily(
            "ggserve_engine_restarts", "Restarts of the engine process", labels=["model"]
        )
        ready = GaugeMetricFamily(
            "ggserve_engine_ready", "1 if the model can serve requests", labels=["model"]
        )
        for model, engine in self.engines.items():
            restarts.add_metric([model], self._monotonic(model, "restarts", engine.restarts))
            ready.add_metric([model], float(engine.state == "ready" and not engine.stalled))
        yield restarts
        yield ready

    def total(self, name: str) -> float:
        """A counter summed over all models."""
        return sum(self._monotonic(model, name, getattr(e.stats, name)) for model, e in self.engines.items())

    def _monotonic(self, model: str, name: str, value: float) -> float:
        """A counter that restarts at 0 with each process or engine, made monotonic."""
        key = (model, name)
        if value < self._last.get(key, 0.0):
            self._base[key] = self._base.get(key, 0.0) + self._last[key]
        self._last[key] = value
        return self._base.get(key, 0.0) + value
