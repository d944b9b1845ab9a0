"""POST /v1/responses, and access to stored responses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request, Response

from engine import exact_json
from server.api.common.schema import INT_MAX
from server.api.openai.item_list import PageDep
from server.api.openai.responses import background
from server.api.openai.responses.formatter import ResponseFormatter
from server.api.openai.responses.parser import parse_input, parse_options, seals_reasoning
from server.api.openai.responses.schema import (
    DeletedReply,
    InputTokensReply,
    ItemListReply,
    ResponseInput,
    ResponseReply,
    ResponseRequest,
)
from server.api.openai.responses.store import not_stored
from server.api.openai.stores import Stores, StoresDep
from server.chat.request import NO_ARGUMENTS, ChatInput, Tool
from server.dependencies import ContextDep
from server.errors import ApiError, unsupported, wrong
from server.generation.request_context import RequestContext
from server.http.json_reply import Bytes, json_reply
from server.http.json_route import json_router
from server.http.route import Route
from server.http.sse import event_stream, respond
from server.input.processor import prepare_chat, process_chat

router = APIRouter(route_class=Route)
json_routes = json_router()  # those with a body
_WHOLE: dict[int | str, dict[str, Any]] = {200: {"model": ResponseReply}}


@json_routes.post("/v1/responses", response_model=None, responses=_WHOLE)
@json_routes.post("/responses", response_model=None, responses=_WHOLE, include_in_schema=False)
async def create_response(
    body: ResponseRequest, request: Request, context: ContextDep, stores: StoresDep
) -> Response:
    """Reply to text or items. With `stream` the response is a stream of named server-sent events."""
    context.select_engine(body.model)
    conversation = parse_input(body, stores, context)
    options = parse_options(body, context)
    store = stores.responses if body.store is not False and stores.responses.most > 0 else None
    if body.store and store is None:
        context.warn("store has no effect: no responses are stored here (--max-stored-responses)")
    if body.background and store is None:
        raise wrong(
            "background", "needs a stored response: no store: false, and --max-stored-responses above 0"
        )
    job = await process_chat(conversation.chat, options, context)
    echo = _echoed_fields(body, conversation.chat)
    formatter = ResponseFormatter(job, conversation, echo, store, seals=seals_reasoning(body))
    stores.responses.running[job.id] = formatter
    if body.background:
        background.start(formatter)
        if formatter.log is not None:
            return event_stream(formatter.log.read(-1, context.state.settings.keep_alive_s))
        return Bytes(msgspec.json.encode(formatter.response("queued", **context.with_warnings({}))))
    return await respond(request, formatter)


def _echoed_fields(body: ResponseRequest, chat: ChatInput) -> dict[str, Any]:
    """The request fields that the response repeats, as in the official API."""
    reasoning, text = body.reasoning, body.text
    format = (text and text.format) or {"type": "text"}
    functions = {tool.name: tool for tool in chat.tools}
    tools = [_echoed_tool(tool, functions) for tool in body.tools or ()]
    return {
        "background": bool(body.background),
        "conversation": body.conversation and {"id": body.conversation},
        "instructions": body.instructions,
        "max_output_tokens": None if body.max_output_tokens == -1 else body.max_output_tokens,
        "max_tool_calls": None,
        "metadata": body.metadata or {},
        "parallel_tool_calls": chat.parallel_tool_calls is not False,
        "previous_response_id": body.previous_response_id,
        "reasoning": {"effort": reasoning and reasoning.effort, "summary": None},
        "service_tier": "default",
        "text": {"format": _exact(format), "verbosity": "medium"},
        "tool_choice": body.tool_choice or "auto",
        "tools": _exact(tools),
        "top_logprobs": body.top_logprobs or 0,
        "truncation": "disabled",
        "user": body.user,
    }


def _echoed_tool(tool: dict[str, Any], functions: Mapping[str, Tool]) -> dict[str, Any]:
    """The tool as repeated, with every field that strict clients expect."""
    if tool.get("type", "function") != "function":
        return tool
    function = functions[tool["name"]]
    return {
        "name": function.name,
        "description": function.description or "",
        "parameters": function.parameters or NO_ARGUMENTS,
        "type": "function",
        "strict": function.strict,
    }


def _exact(value: Any) -> msgspec.Raw:
    """A part of the response that keeps every digit of the request's numbers."""
    return msgspec.Raw(exact_json.dumps(value).encode())


@json_routes.post(
    "/v1/responses/input_tokens", response_model=None, responses={200: {"model": InputTokensReply}}
)
@json_routes.post("/responses/input_tokens", response_model=None, include_in_schema=False)
async def input_tokens(body: ResponseInput, context: ContextDep, stores: StoresDep) -> Response:
    """Count the tokens of the prompt that such a request would have."""
    context.select_engine(body.model)
    prompt = await prepare_chat(parse_input(body, stores, context).chat, context)
    return json_reply({"object": "response.input_tokens", "input_tokens": len(prompt.tokens)}, context)


def _running(id: str, stores: Stores, context: RequestContext) -> ResponseFormatter | None:
    formatter: ResponseFormatter | None = stores.responses.running.get(id)
    if formatter is None or formatter.owner != context.owner:
        return None
    return formatter if id in context.state.jobs or formatter.task is not None else None


@router.get("/v1/responses/{id}", response_model=None, responses=_WHOLE)
async def get_response(
    id: str,
    context: ContextDep,
    stores: StoresDep,
    stream: Annotated[
        bool | None, Query(description="its events, where it was requested with `background` and `stream`")
    ] = None,
    starting_after: Annotated[
        int, Query(ge=-1, le=INT_MAX, description="with `stream`: only events after that `sequence_number`")
    ] = -1,
) -> Response:
    """Return a stored response, or one that is being generated."""
    stored, running = stores.responses.get(id, context.owner), _running(id, stores, context)
    if stored is None and running is None:
        raise not_stored(id, "id")
    if stream:
        log = stored.content.log if stored is not None else running.log if running is not None else None
        if log is None:
            message = "events are stored only for responses with background and stream, if there is room"
            raise unsupported("stream", message)
        return event_stream(log.read(starting_after, context.state.settings.keep_alive_s))
    if stored is not None:
        return Bytes(stored.content.response)
    assert running is not None
    return Bytes(msgspec.json.encode(running.response(running.status)))


@router.delete("/v1/responses/{id}", response_model=None, responses={200: {"model": DeletedReply}})
async def delete_response(id: str, context: ContextDep, stores: StoresDep) -> dict[str, Any]:
    """Delete a stored response; one that is being generated in the background is ended."""
    running = _running(id, stores, context)
    if running is not None and running.task is not None:
        await background.cancel(running.task)
    stored = stores.responses.get(id, context.owner)
    if stored is None:
        raise not_stored(id, "id")
    stores.responses.remove(stored)
    return {"id": id, "object": "response.deleted", "deleted": True}


@router.post("/v1/responses/{id}/cancel", response_model=None, responses=_WHOLE)
async def cancel_response(id: str, context: ContextDep, stores: StoresDep) -> Response:
    """Cancel a response that is being generated. If a client is waiting for it, that client gets an error."""
    running = _running(id, stores, context)
    if running is not None and running.task is not None:
        await background.cancel(running.task)
    if running is None or running.in_background:
        stored = stores.responses.get(id, context.owner)
        if stored is not None and msgspec.json.decode(stored.content.response)["background"]:
            return Bytes(stored.content.response)  # as it ended, however often it is cancelled
        if stored is not None:
            message = "the response is complete; only one that is being generated can be cancelled"
            raise ApiError(400, message, param="id", code="response_not_running")
        raise not_stored(id, "id")
    running.job.cancel()
    return Bytes(msgspec.json.encode(running.response("cancelled")))


@router.get("/v1/responses/{id}/input_items", response_model=None, responses={200: {"model": ItemListReply}})
async def input_items(
    id: str,
    context: ContextDep,
    stores: StoresDep,
    page: PageDep,
) -> dict[str, Any]:
    """List the input items of a stored response, including earlier turns."""
    stored = stores.responses.get(id, context.owner)
    if stored is None:
        raise not_stored(id, "id")
    items = stored.content.items()[: stored.content.n_input]
    return page.of({item["id"]: item for item in items})
