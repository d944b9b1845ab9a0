"""GET and POST /lora-adapters: a model's LoRA adapters, and their scales for requests that name none."""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Any

from fastapi import APIRouter, Body, Response

from engine.config import MAX_ADAPTERS
from server.api.common.requests.generation_fields import LoraScale
from server.api.common.schema import Reply, required
from server.api.llama_server.props import ModelQuery
from server.dependencies import ContextDep
from server.generation.request_context import RequestContext
from server.http.json_reply import json_reply
from server.http.json_route import json_router
from server.http.route import Route

router, with_body = APIRouter(route_class=Route), json_router()


class LoraAdapterReply(Reply):
    id: int = required("the adapter's number, by which requests refer to it", 0)
    path: str = required("the name of the adapter's file", "lora.gguf")
    scale: float = required("scale for requests that name no adapters; 0: not used", 1.0)
    task_name: str = required("from the adapter's file", "")
    prompt_prefix: str = required("from the adapter's file", "")


class LoraScalesReply(Reply):
    success: bool = required("always true", True)


Scales = Annotated[
    list[LoraScale],
    Body(
        description="the scales; adapters that are not listed get the scale 0",
        max_length=MAX_ADAPTERS,
        examples=[[{"id": 0, "scale": 0.5}]],
    ),
]


@router.get("/lora-adapters", response_model=list[LoraAdapterReply])
async def lora_adapters(context: ContextDep, model: ModelQuery = None) -> list[dict[str, Any]]:
    """List the LoRA adapters that a model was loaded with, and their scales for requests that name none."""
    return _adapters(context, model)


@with_body.post("/lora-adapters", response_model=None, responses={200: {"model": LoraScalesReply}})
async def set_lora_adapters(scales: Scales, context: ContextDep, model: ModelQuery = None) -> Response:
    """Set the scales of adapters for later requests that name none; those not listed get the scale 0."""
    engine = context.select_engine(model)
    pairs = [(adapter.id, adapter.scale) for adapter in scales]
    context.state.derived[engine].lora = context.check_lora(pairs, "id")
    return json_reply({"success": True}, context)


def _adapters(context: RequestContext, model: str | None) -> list[dict[str, Any]]:
    engine = context.select_engine(model, counts=False)
    in_use = dict(context.lora)
    return [
        {
            "id": adapter["id"],
            "path": PurePath(adapter["path"]).name,  # clients need not see folders
            "scale": in_use.get(adapter["id"], 0.0),
            "task_name": adapter["task_name"],
            "prompt_prefix": adapter["prompt_prefix"],
        }
        for adapter in (engine.info or {}).get("lora", ())
    ]
