"""Failures of the engine's tasks as the client sees them."""

from __future__ import annotations

from typing import Any

import pytest

from engine.tasks.types import Embed
from server.errors import ApiError
from server.generation.request_context import AccessRecord, RequestContext
from server.generation.tasks import run_task
from server.worker.errors import TaskFailed
from support.fakes.engine import FakeEngine, make_app

pytestmark = pytest.mark.asyncio
TASK = Embed([[5, 6]], "last")


def context_of(engine: FakeEngine) -> RequestContext:
    context = RequestContext(make_app(engine).state.ggserve, AccessRecord("id"))
    context.select_engine(None)
    return context


async def failure(engine: FakeEngine) -> tuple[ApiError, RequestContext]:
    context = context_of(engine)
    with pytest.raises(ApiError) as raised:
        await run_task(TASK, context, "input")
    return raised.value, context


async def test_task_returns_its_result_and_logs_the_model() -> None:
    context = context_of(FakeEngine())
    result: Any = await run_task(TASK, context, "input")
    assert len(result.vectors) == 1
    assert context.record.model == "stories"


@pytest.mark.parametrize(
    ("kind", "status", "code", "param", "retry"),
    [
        ("ConfigError", 400, "invalid_value", "input", None),
        ("ModelError", 400, "invalid_value", "input", None),
        ("OutOfMemoryError", 503, "out_of_memory", None, "true"),
        ("StorageError", 500, "not_written", None, "false"),
        ("KeyError", 500, "internal_error", None, "false"),
    ],
)
async def test_failed_task_has_the_status_of_its_kind(
    kind: str, status: int, code: str, param: str | None, retry: str | None
) -> None:
    engine = FakeEngine()
    engine.work_error = TaskFailed(kind, "the reason")
    error, context = await failure(engine)
    assert (error.status_code, error.code, error.param) == (status, code, param)
    assert (error.headers or {}).get("x-should-retry") == retry
    assert context.record.error == f"{kind}: the reason"
    assert ("the reason" in error.message) == (kind in ("ConfigError", "ModelError", "StorageError"))


async def test_task_refused_by_a_full_queue_is_counted_and_may_be_retried() -> None:
    engine = FakeEngine()
    engine.full = True
    error, context = await failure(engine)
    assert (error.status_code, error.code) == (429, "queue_full")
    assert b'ggserve_queue_rejections_total{model="stories"} 1.0' in context.state.metrics.render()


async def test_task_for_a_failed_engine_is_a_503_without_the_reason() -> None:
    engine = FakeEngine()
    context = context_of(engine)
    engine.state = "failed"
    with pytest.raises(ApiError) as raised:
        await run_task(TASK, context, "input")
    assert raised.value.status_code == 503
    assert "/dev/secret" not in raised.value.message
