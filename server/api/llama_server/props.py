"""GET /props and /slots: what llama-server's clients ask before they ask for text."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query

from engine.types import InferenceParameters
from server.api.llama_server.completion.settings import DEFAULTS, settings
from server.chat.chat_format import ChatFormats
from server.cli.main import version
from server.dependencies import Engine, State, StateDep
from server.errors import ApiError
from server.input import tokenize

if TYPE_CHECKING:
    from server.generation.output_processor import Choice
    from server.worker.slots import ServerSlot

router = APIRouter()
RANDOM_SEED = 2**32 - 1  # as llama-server tells that each request gets another
ModelQuery = Annotated[str | None, Query(max_length=512, description="a served model; default: the only one")]


def _defaults(state: State) -> dict[str, Any]:
    params = InferenceParameters(**{**DEFAULTS, **state.defaults}, seed=state.settings.seed)
    found = settings(params)
    return found if params.seed is not None else {**found, "seed": RANDOM_SEED}


def _caps(chat: ChatFormats) -> dict[str, bool]:
    """What the chat template can show, by llama-server's names."""
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
async def props(state: StateDep, model: ModelQuery = None) -> dict[str, Any]:
    """A model's template, its context, and the values of fields that a request leaves out."""
    engine = state.engine(model)
    tokenizer = engine.tokenizer
    facts = await tokenize.facts_of(engine, state)
    chat = facts.chat if isinstance(facts.chat, ChatFormats) else None

    def text(id: int | None) -> str:
        return "" if id is None else tokenizer.token_text(id)

    found: dict[str, Any] = {
        "default_generation_settings": {
            "params": _defaults(state),
            "n_ctx": engine.n_ctx,
            "n_batch": state.settings.batch_size,
        },
        "max_batch_size": engine.max_batch_size,
        "total_slots": len(engine.slots),
        "model_alias": engine.name,
        # Folders are nobody's business who may only ask for text.
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
    }
    if chat and chat.with_tools is not chat.plain:
        found["chat_template_tool_use"] = chat.with_tools.template.source
    return found


@router.post("/props")
async def change_props() -> dict[str, Any]:
    """Always 501: properties do not change while the server runs."""
    raise ApiError(
        501, "properties cannot be changed; start the server with other options", code="not_supported"
    )


def _slot(slot: ServerSlot, engine: Engine, choices: dict[str, Choice]) -> dict[str, Any]:
    stream = slot.stream
    found: dict[str, Any] = {
        "id": slot.id,
        "n_ctx": engine.n_ctx,
        "speculative": False,
        "is_processing": stream is not None,
    }
    if stream is None:
        return found
    request = stream.request
    choice = choices.get(request.id)
    limit = request.params.max_tokens
    cached = 0 if choice is None else choice.timings.cached_n
    next_token = {
        "has_next_token": not stream.finished,
        "has_new_line": choice is not None and choice.has_new_line,
        "n_remain": -1 if limit is None else max(limit - stream.n_generated, 0),
        "n_decoded": stream.n_generated,
    }
    n_done = len(request.prompt) if stream.n_generated else stream.processed or 0
    return found | {
        "id_task": request.id,
        "n_prompt_tokens": len(request.prompt) + stream.n_generated,
        "n_prompt_tokens_processed": max(n_done - cached, 0),
        "n_prompt_tokens_cache": cached,
        "params": settings(request.params, eog_ids=sorted(engine.tokenizer.eog_ids)),
        "next_token": [next_token],
    }


@router.get("/slots")
async def slots(
    state: StateDep,
    model: ModelQuery = None,
    fail_on_no_slot: Annotated[
        str | None, Query(max_length=16, description="anything: 503 if no slot is free")
    ] = None,
) -> list[dict[str, Any]]:
    """Places in the batch, and what runs in each."""
    if state.settings.no_slots:
        raise ApiError(501, "the view of slots is off; start without --no-slots", code="not_supported")
    engine = state.engine(model)
    if fail_on_no_slot and all(slot.stream is not None for slot in engine.slots):
        raise ApiError(503, "no slot is free", code="no_slot", retry_after=1)
    choices = {choice.request.id: choice for job in state.jobs.values() for choice in job.choices}
    return [_slot(slot, engine, choices) for slot in engine.slots]
