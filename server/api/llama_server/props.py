"""GET /props and /slots."""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Any

from fastapi import APIRouter, Query

from engine.types import CACHE_ROOM, InferenceParameters
from server.api.common.replies.native_completion import generation_settings
from server.chat.prompt import ChatFormats
from server.dependencies import ContextDep
from server.errors import ApiError
from server.generation.job import visible_jobs
from server.generation.output_processor import OutputSequence
from server.generation.request_context import RequestContext
from server.http.route import Route
from server.input.processor import chat_support
from server.version import version
from server.worker.engine import Engine
from server.worker.requests.slots import ServerSlot

router = APIRouter(route_class=Route)
RANDOM_SEED = 2**32 - 1  # llama-server's value for "another one for each request"
ModelQuery = Annotated[str | None, Query(max_length=512, description="a served model; default: the only one")]


def _defaults(context: RequestContext) -> dict[str, Any]:
    params = InferenceParameters(**context.default_sampling, seed=context.state.settings.seed)
    values = {**generation_settings(params), "speculative.types": context.spec_type}
    return values if params.seed is not None else {**values, "seed": RANDOM_SEED}


def _caps(chat: ChatFormats) -> dict[str, bool]:
    """The chat template's capabilities, under llama-server's names."""
    plain, tools = chat.plain.capabilities, chat.with_tools.capabilities
    return {
        "supports_string_content": plain.string_content,
        "supports_typed_content": plain.typed_content,
        "supports_system_role": plain.system,
        "supports_tools": tools.tools,
        "supports_tool_calls": tools.calls,
        "supports_parallel_tool_calls": tools.parallel_calls,
        "supports_object_arguments": tools.object_arguments,
        "supports_preserve_reasoning": plain.reasoning,
    }


@router.get("/props")
async def props(context: ContextDep, model: ModelQuery = None) -> dict[str, Any]:
    """A model's template, its context size, and the defaults of fields that a request omits."""
    engine, state = context.select_engine(model, counts=False), context.state
    tokenizer = engine.tokenizer
    formats = (await chat_support(context)).formats
    chat = formats if isinstance(formats, ChatFormats) else None

    def text(id: int | None) -> str:
        return "" if id is None else tokenizer.token_text(id)

    properties: dict[str, Any] = {
        "default_generation_settings": {
            "params": _defaults(context),
            "n_ctx": engine.n_ctx,
            "n_batch": state.settings.batch_size,
        },
        "max_batch_size": engine.max_batch_size,
        "total_slots": len(engine.slots),
        "model_alias": engine.name,
        # Clients that only ask for text need not see folders.
        "model_path": PurePath((engine.info or {}).get("path") or engine.name).name,
        "modalities": {"vision": False, "audio": False, "video": False},
        "endpoint_slots": not state.settings.no_slots,
        "endpoint_props": False,
        "endpoint_metrics": not state.settings.no_metrics,
        "chat_template": chat.plain.template.source if chat else "",
        "chat_template_caps": _caps(chat) if chat else {},
        "bos_token": text(tokenizer.bos_id),
        "eos_token": text(tokenizer.eos_id),
        "build_info": f"ggserve-{version()}",
        "is_sleeping": False,
        "cache": {name: getattr(engine.stats, name) for name in CACHE_ROOM},
    }
    if chat and chat.with_tools is not chat.plain:
        properties["chat_template_tool_use"] = chat.with_tools.template.source
    return properties


@router.post("/props")
async def change_props() -> dict[str, Any]:
    """Always 501: properties cannot be changed while the server runs."""
    raise ApiError(
        501, "properties cannot be changed; start the server with other options", code="not_supported"
    )


def _slot(
    slot: ServerSlot, engine: Engine, sequences: dict[str, OutputSequence], *, shows_all: bool, drafts: bool
) -> dict[str, Any]:
    """One slot. sequences: those that the client may see. shows_all: also describe streams that are not among
    these.

    drafts: whether requests that do not set it use speculative decoding.
    """
    stream = slot.stream
    view: dict[str, Any] = {
        "id": slot.id,
        "n_ctx": engine.n_ctx,
        "speculative": drafts,
        "is_processing": stream is not None,
    }
    if stream is None or not (shows_all or stream.request.id in sequences):
        return view
    request = stream.request
    sequence = sequences.get(request.id)
    limit = request.params.max_tokens
    cached = 0 if sequence is None else sequence.timings.cached_n
    next_token = {
        "has_next_token": not stream.finished,
        "has_new_line": sequence is not None and sequence.has_line_break,
        "n_remain": -1 if limit is None else max(limit - stream.n_generated, 0),
        "n_decoded": stream.n_generated,
    }
    n_done = len(request.prompt) if stream.n_generated else stream.processed or 0
    return view | {
        "id_task": request.id,
        "speculative": request.draft_max > 0,
        "n_prompt_tokens": len(request.prompt) + stream.n_generated,
        "n_prompt_tokens_processed": max(n_done - cached, 0),
        "n_prompt_tokens_cache": cached,
        "params": generation_settings(request.params, sequence=sequence),
        "next_token": [next_token],
    }


@router.get("/slots")
async def slots(
    context: ContextDep,
    model: ModelQuery = None,
    fail_on_no_slot: Annotated[
        str | None, Query(max_length=16, description="if set: 503 if no slot is free")
    ] = None,
) -> list[dict[str, Any]]:
    """List the slots and what runs in them. Only an administrator sees the details of other clients'
    requests.
    """
    if context.state.settings.no_slots:
        raise ApiError(501, "/slots is disabled; start without --no-slots", code="not_supported")
    engine = context.select_engine(model, counts=False)
    if fail_on_no_slot and all(slot.stream is not None for slot in engine.slots):
        raise ApiError(503, "no slot is free", code="no_slot", retry_after=1)
    jobs = visible_jobs(context)
    sequences = {sequence.request.id: sequence for job in jobs for sequence in job.sequences}
    shows_all = context.client.is_admin
    drafts = context.spec_type != "none"
    return [_slot(slot, engine, sequences, shows_all=shows_all, drafts=drafts) for slot in engine.slots]
