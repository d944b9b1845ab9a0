"""State changes of models as events, in the format of llama-server's router."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection
from typing import Any

from server.api.common.replies.model_status import model_status
from server.registry.registry import ModelRegistry

PROGRESS_S = 0.2  # between two looks at a model that is being loaded


async def model_events(
    registry: ModelRegistry, names: Collection[str] | None = None
) -> AsyncGenerator[dict[str, Any] | None, None]:
    """State changes from now on, of these models or of all.

    Yields None from time to time if nothing changes.
    """
    before = _statuses(registry, names)
    while True:
        await registry.changes.wait(PROGRESS_S)
        now = _statuses(registry, names)
        for name in before.keys() - now.keys():
            yield {"model": name, "event": "model_remove"}
        if now.keys() - before.keys():
            yield {"model": "*", "event": "models_reload"}
        for name, status in now.items():
            if status != before.get(name):
                yield status_event(name, status)
        if now == before:
            yield None
        before = now


def status_event(name: str, status: dict[str, Any]) -> dict[str, Any]:
    data = {"status": status["value"], **{key: status[key] for key in status if key != "value"}}
    return {"model": name, "event": "model_status", "data": data}


def _statuses(registry: ModelRegistry, names: Collection[str] | None) -> dict[str, dict[str, Any]]:
    return {
        name: model_status(model) for name, model in registry.models.items() if names is None or name in names
    }
