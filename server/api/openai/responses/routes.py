"""POST /v1/responses, and what is kept of responses."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query, Request, Response

from server.api.common.jobs import Words, chat_job, count
from server.api.common.json_reader import unsupported, warn, wrong
from server.api.openai.responses.formatter import ResponseFormat
from server.api.openai.responses.items import not_kept
from server.api.openai.responses.parser import echo_of, generation_of, given_by, logprobs_of
from server.api.openai.responses.schema import (
    DeletedReply,
    InputTokensReply,
    ItemListReply,
    ResponseInput,
    ResponseReply,
    ResponseRequest,
)
from server.dependencies import OwnerDep, RecordDep, State, StateDep
from server.errors import ApiError
from server.http.json_route import Bytes, json_router
from server.http.respond import respond_in_blocks
from server.input.processor import unknown_fields

router = APIRouter()
json_routes = json_router()  # those with a body
_WORDS = Words("max_output_tokens", "parameters")
_WHOLE: dict[int | str, dict[str, Any]] = {200: {"model": ResponseReply}}


@json_routes.post("/v1/responses", response_model=None, responses=_WHOLE)
@json_routes.post("/responses", response_model=None, responses=_WHOLE, include_in_schema=False)
async def create_response(
    body: ResponseRequest, request: Request, state: StateDep, record: RecordDep, owner: OwnerDep
) -> Response:
    """Answer text or items. With `stream` the answer comes as server-sent events with names."""
    engine = state.engine(body.model)
    warnings = unknown_fields(body)
    given = given_by(body, state.kept, owner, warnings)
    generation = generation_of(body, warnings)
    logprobs = logprobs_of(body, warnings)
    keep = body.store is not False and state.kept.most > 0
    if body.store and not keep:
        warn(warnings, "store has no effect: nothing is kept here (--max-stored-responses)")
    job = await chat_job(
        given.chat,
        generation,
        engine,
        state,
        record,
        warnings,
        words=_WORDS,
        prefix="resp_",
        max_tokens=body.max_output_tokens,
        logprobs=logprobs,
    )
    format = ResponseFormat(
        job,
        echo_of(body, given.chat),
        given.items,
        given.n_new,
        logprobs=logprobs is not None,
        return_tokens=bool(body.return_tokens),
        kept=state.kept if keep else None,
        owner=owner,
    )
    state.kept.running[job.id] = format
    return await respond_in_blocks(request, job, format)


@json_routes.post(
    "/v1/responses/input_tokens", response_model=None, responses={200: {"model": InputTokensReply}}
)
@json_routes.post("/responses/input_tokens", response_model=None, include_in_schema=False)
async def input_tokens(body: ResponseInput, state: StateDep, owner: OwnerDep) -> Response:
    """How many tokens such a request would give to the model."""
    engine = state.engine(body.model)
    warnings = unknown_fields(body)
    given = given_by(body, state.kept, owner, warnings)
    n = await count(given.chat, engine, state, warnings, _WORDS)
    found: dict[str, Any] = {"object": "response.input_tokens", "input_tokens": n}
    return Bytes(msgspec.json.encode({**found, "warnings": warnings} if warnings else found))


def _running(id: str, state: State, owner: bytes | None) -> ResponseFormat | None:
    format = state.kept.running.get(id)
    return format if format is not None and id in state.jobs and format.owner == owner else None


@router.get("/v1/responses/{id}", response_model=None, responses=_WHOLE)
async def get_response(
    id: str,
    state: StateDep,
    owner: OwnerDep,
    stream: Annotated[bool | None, Query(description="only false: events are not kept")] = None,
) -> Response:
    """A response that is kept, or that is being made."""
    if stream:
        raise unsupported("stream", "events are told only to the client that asked for the response")
    running = _running(id, state, owner)
    if running is not None:
        return Bytes(msgspec.json.encode(running.response("in_progress")))
    kept = state.kept.get(id, owner)
    if kept is None:
        raise not_kept(id, "id")
    return Bytes(kept.response)


@router.delete("/v1/responses/{id}", response_model=None, responses={200: {"model": DeletedReply}})
async def delete_response(id: str, state: StateDep, owner: OwnerDep) -> dict[str, Any]:
    """Forget a response that is kept."""
    if not state.kept.remove(id, owner):
        raise not_kept(id, "id")
    return {"id": id, "object": "response.deleted", "deleted": True}


@router.post("/v1/responses/{id}/cancel", response_model=None, responses=_WHOLE)
async def cancel_response(id: str, state: StateDep, owner: OwnerDep) -> Response:
    """End a response that is being made. Its client gets an error."""
    running = _running(id, state, owner)
    if running is None:
        if state.kept.get(id, owner) is not None:
            message = "the response is there already; only one that is being made can be cancelled"
            raise ApiError(400, message, param="id", code="response_not_running")
        raise not_kept(id, "id")
    running.job.cancel()
    return Bytes(msgspec.json.encode(running.response("cancelled")))


@router.get("/v1/responses/{id}/input_items", response_model=None, responses={200: {"model": ItemListReply}})
async def input_items(
    id: str,
    state: StateDep,
    owner: OwnerDep,
    limit: Annotated[int, Query(ge=1, le=100, description="how many items")] = 20,
    order: Annotated[Literal["asc", "desc"], Query(description="oldest or newest first")] = "desc",
    after: Annotated[str | None, Query(description="only those after this item")] = None,
) -> dict[str, Any]:
    """What the model was given for a response that is kept, earlier turns included."""
    kept = state.kept.get(id, owner)
    if kept is None:
        raise not_kept(id, "id")
    items = kept.items()[: kept.n_given]
    if order == "desc":
        items.reverse()
    if after is not None:
        place = next((i for i, item in enumerate(items) if item["id"] == after), None)
        if place is None:
            raise wrong("after", "there is no such item in the response's input")
        items = items[place + 1 :]
    page = items[:limit]
    first, last = (page[0]["id"], page[-1]["id"]) if page else (None, None)
    more = len(items) > limit
    return {"object": "list", "data": page, "first_id": first, "last_id": last, "has_more": more}


router.include_router(json_routes)
