"""GET /metrics."""

from __future__ import annotations

from fastapi import APIRouter, Response

from server.dependencies import StateDep
from server.errors import ApiError
from server.http.route import Route
from server.metrics.prometheus import CONTENT_TYPE

router = APIRouter(route_class=Route)


@router.get("/metrics", response_class=Response)
async def metrics(state: StateDep) -> Response:
    """Metrics in Prometheus text format: our own (`ggserve_`), then llama-server's (`llamacpp:`)."""
    if state.settings.no_metrics:
        raise ApiError(501, "metrics are off; start without --no-metrics", code="not_supported")
    headers = {"content-type": CONTENT_TYPE, "process-start-time-unix": str(int(state.started))}
    return Response(state.metrics.render(), headers=headers)
