"""Models pulled and deleted for an API: permission, one at a time, and failures without paths."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from server.api.common.model_files import delete, pull
from server.errors import ApiError
from server.generation.request_context import AccessRecord, RequestContext
from server.models import catalog
from server.models.errors import DownloadError, ModelNotFound
from server.models.progress import Progress
from server.models.resolver import Pulling
from support.fakes.engine import FakeEngine, make_app

pytestmark = pytest.mark.asyncio
STEP = Progress("downloading", "x.gguf", 1, 2)


def context_of(engine: FakeEngine | None = None, **settings: Any) -> RequestContext:
    return RequestContext(
        make_app(engine, **{"allow_pull": True, **settings}).state.ggserve, AccessRecord("id")
    )


async def test_pull_and_delete_without_the_option_are_refused() -> None:
    context = context_of(allow_pull=False)
    for work in (anext(pull("x", context)), delete("x", context)):
        with pytest.raises(ApiError, match="option --allow-pull") as raised:
            await work
        assert (raised.value.status_code, raised.value.code) == (403, "not_permitted")


async def test_second_pull_waits_for_the_first_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "pull", lambda name, pulling: pulling.report(STEP))
    context = context_of()
    first = pull("one", context)
    assert await anext(first) == STEP
    with pytest.raises(ApiError, match="one is being pulled") as raised:
        await anext(pull("two", context))
    assert (raised.value.status_code, raised.value.code) == (429, "busy")
    await first.aclose()
    assert [step async for step in pull("two", context)] == [STEP]


@pytest.mark.parametrize(
    ("failure", "status", "code", "message"),
    [
        (ModelNotFound("/home/me/x is not there"), 404, "model_not_found", "the cache is not there"),
        (DownloadError("C:\\Users\\me is full; go"), 500, "pull_failed", "the cache is full; go"),
        (ValueError("must be hf:OWNER/REPO"), 400, "invalid_value", "model: must be hf:OWNER/REPO"),
    ],
)
async def test_failed_pull_ends_with_a_status_and_without_a_path(
    failure: Exception, status: int, code: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(name: str, pulling: Pulling) -> None:
        raise failure

    monkeypatch.setattr(catalog, "pull", failing)
    context = context_of()
    with pytest.raises(ApiError) as raised:
        await anext(pull("x", context))
    error = raised.value
    assert (error.status_code, error.code) == (status, code)
    assert error.message == message
    assert context.state.jobs == {}


@pytest.mark.parametrize(
    ("state", "path", "status", "code"),
    [
        ("ready", "served.gguf", 409, "model_in_use"),
        ("failed", "served.gguf", 409, "model_in_use"),  # it may be loaded again
        ("ready", "link.gguf", 409, "model_in_use"),
        ("loading", "other.gguf", 503, "model_loading"),
    ],
)
async def test_delete_of_a_model_in_use_is_refused(
    state: str, path: str, status: int, code: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "served.gguf").touch()
    (tmp_path / "link.gguf").symlink_to(tmp_path / "served.gguf")
    engine = FakeEngine()
    engine.state, engine.info = state, {"path": str(tmp_path / "served.gguf")}
    monkeypatch.setattr(catalog, "find", lambda name: SimpleNamespace(path=tmp_path / path, source="package"))
    monkeypatch.setattr(catalog, "delete", lambda name: pytest.fail("it was deleted"))
    with pytest.raises(ApiError) as raised:
        await delete("x", context_of(engine))
    assert (raised.value.status_code, raised.value.code) == (status, code)


async def test_delete_removes_a_present_model_and_names_a_missing_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    deleted: list[str] = []
    there = SimpleNamespace(path=tmp_path / "x.gguf", source="package")
    monkeypatch.setattr(catalog, "find", lambda name: there if name == "x" else None)
    monkeypatch.setattr(catalog, "delete", deleted.append)
    await delete("x", context_of())
    assert deleted == ["x"]
    with pytest.raises(ApiError, match="there is no model 'y' on this machine") as raised:
        await delete("y", context_of())
    assert raised.value.status_code == 404
