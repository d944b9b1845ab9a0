"""OpenTelemetry traces (extra `otel`): a span for each request, with child spans for its phases."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from engine.errors import ConfigError

SEND_S = 3.0  # with repetitions; the end of the server waits as long for a collector that does not answer
Span = tuple[str, float, float, Mapping[str, Any]]  # name, start and end of time.monotonic, attributes


class Traces:
    """Exports spans from a separate thread. What cannot be sent in time is dropped."""

    def __init__(self, endpoint: str, exporter: Any = None) -> None:
        """endpoint: an OTLP endpoint over HTTP. exporter: replaces it. Raises ConfigError without the extra
        `otel`.
        """
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise ConfigError(
                "otlp_traces_endpoint needs OpenTelemetry: pip install ggserve[otel]"
            ) from error
        resource = Resource.create({"service.name": "ggserve"})  # OTEL_SERVICE_NAME has precedence
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(
            BatchSpanProcessor(exporter or OTLPSpanExporter(endpoint, timeout=SEND_S))
        )
        self._tracer = self._provider.get_tracer("ggserve")

    def request(self, headers: Mapping[str, str], request: Span, parts: Iterable[Span]) -> None:
        """Record a request that has ended, as a child of the span that `traceparent` in its headers names."""
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        offset = time.time() - time.monotonic()

        def ns(at: float) -> int:
            return int((at + offset) * 1e9)

        parent = TraceContextTextMapPropagator().extract(headers)
        name, start, end, attributes = request
        span = self._tracer.start_span(
            name, parent, kind=SpanKind.SERVER, attributes=attributes, start_time=ns(start)
        )
        if attributes["http.response.status_code"] >= 500:
            span.set_status(Status(StatusCode.ERROR))
        below = set_span_in_context(span)
        for name, begin, stop, part in parts:
            child = self._tracer.start_span(name, below, attributes=part, start_time=ns(begin))
            child.end(ns(stop))
        span.end(ns(end))

    def close(self) -> None:
        """Send the remaining spans. Blocks for seconds if the endpoint does not answer."""
        self._provider.shutdown()
