"""GET /v1/requests and DELETE /v1/requests/{id}: what runs and waits, and how to end it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter

from server.dependencies import RequestInfo, StateDep
from server.errors import ApiError

if TYPE_CHECKING:
    from server.generation.job import Job

router = APIRouter()
_STATES = ("decode", "paused", "prefill", "queued")  # a job is as far as its furthest choice


def describe(job: Job, infos: dict[str, RequestInfo]) -> dict[str, Any]:
    """One running request."""
    choices = []
    for choice in job.choices:
        info = infos.get(choice.request.id)
        unknown = "finished" if choice.finish else "queued"  # to the engine
        state = info.state if info is not None else unknown
        choices.append({"index": choice.index, "state": state, "n_generated": choice.n_generated})
    states = {choice["state"] for choice in choices}
    return {
        "id": job.id,
        "object": "request",
        "request_id": job.record.id,
        "model": job.model,
        "state": next((state for state in _STATES if state in states), "finished"),
        "stream": job.stream,
        "n_prompt": sum({c.prompt_index: len(c.request.prompt) for c in job.choices}.values()),
        "n_generated": sum(choice.n_generated for choice in job.choices),
        "age_ms": round((time.monotonic() - job.started) * 1000, 1),
        "choices": choices,
    }


@router.get("/v1/requests")
async def running(state: StateDep) -> dict[str, Any]:
    """Requests that run or wait, oldest first."""
    infos = {info.id: info for engine in state.engines.values() for info in engine.requests()}
    return {"object": "list", "data": [describe(job, infos) for job in list(state.jobs.values())]}


@router.delete("/v1/requests/{id}")
async def cancel(id: str, state: StateDep) -> dict[str, Any]:
    """End a request, by the id of its response or by its X-Request-Id."""
    jobs = [job for job in state.jobs.values() if id in (job.id, job.record.id)]
    if not jobs:
        raise ApiError(404, f"no running request '{id[:128]}'", param="id", code="request_not_found")
    for job in jobs:
        job.cancel()
    return {"id": id, "object": "request", "cancelled": True}
