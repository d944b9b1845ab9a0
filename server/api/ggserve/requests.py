"""GET /v1/requests and DELETE /v1/requests/{id}: list running and waiting requests, and cancel them."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter

from server.dependencies import ContextDep
from server.errors import ApiError
from server.generation.job import Job, visible_jobs
from server.http.route import Route
from server.worker.requests.stream import RequestInfo

router = APIRouter(route_class=Route)
_STATES = ("decode", "paused", "prefill", "queued")  # a job is as far as its furthest sequence


def describe(job: Job, infos: dict[str, RequestInfo]) -> dict[str, Any]:
    """One running or waiting request."""
    choices, counts = [], job.counts()
    for sequence in job.sequences:
        info = infos.get(sequence.request.id)
        unknown = "finished" if sequence.end else "queued"  # to the engine
        state = info.state if info is not None else unknown
        choices.append({"index": sequence.index, "state": state, "n_generated": sequence.n_generated})
    states = {choice["state"] for choice in choices}
    return {
        "id": job.id,
        "object": "request",
        "request_id": job.context.record.id,
        "model": job.model,
        **({"key": job.context.owner} if job.context.owner is not None else {}),
        "state": next((state for state in _STATES if state in states), "finished"),
        "stream": job.options.stream,
        "priority": job.sequences[0].request.priority,
        "n_prompt": counts.prompt,
        "n_generated": counts.generated,
        "age_ms": round((time.monotonic() - job.started) * 1000, 1),
        "choices": choices,
    }


@router.get("/v1/requests")
async def running(context: ContextDep) -> dict[str, Any]:
    """List this client's running and waiting requests, oldest first; an administrator sees those of all
    clients.
    """
    engines = context.state.registry.all_engines()
    infos = {info.id: info for engine in engines for info in engine.requests()}
    return {"object": "list", "data": [describe(job, infos) for job in visible_jobs(context)]}


@router.delete("/v1/requests/{id}")
async def cancel(id: str, context: ContextDep) -> dict[str, Any]:
    """Cancel a request by the id of its response or its X-Request-Id. An administrator can cancel any
    client's request.
    """
    jobs = [job for job in visible_jobs(context) if id in (job.id, job.context.record.id)]
    if not jobs:
        raise ApiError(404, f"no running request '{id[:128]}'", param="id", code="request_not_found")
    for job in jobs:
        job.cancel()
    return {"id": id, "object": "request", "cancelled": True}
