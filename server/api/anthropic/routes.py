"""POST /v1/messages and /v1/messages/count_tokens."""

from __future__ import annotations

from fastapi import Request, Response

from server.api.anthropic.context_management import edit_conversation
from server.api.anthropic.formatter import MessageFormatter
from server.api.anthropic.parser import check_body, hides_thinking, parse_chat, parse_options
from server.api.anthropic.schema import CountReply, MessageInput, MessageReply, MessageRequest
from server.dependencies import ContextDep
from server.http.json_reply import json_reply
from server.http.json_route import json_router
from server.http.sse import respond
from server.input.processor import prepare_chat, process_chat

router = json_router()


@router.post("/v1/messages", response_model=None, responses={200: {"model": MessageReply}})
async def create_message(body: MessageRequest, request: Request, context: ContextDep) -> Response:
    """Reply to a conversation. With `stream` the response is a stream of named server-sent events."""
    context.select_engine(body.model)
    check_body(body, context)
    options = parse_options(body, context)
    chat = parse_chat(body, context)
    edits = None
    if body.context_management is not None:
        edits = await edit_conversation(body.context_management, chat, context)
    job = await process_chat(chat, options, context)
    return await respond(request, MessageFormatter(job, omit_thinking=hides_thinking(body), edits=edits))


@router.post("/v1/messages/count_tokens", response_model=None, responses={200: {"model": CountReply}})
async def count_tokens(body: MessageInput, context: ContextDep) -> Response:
    """Count the tokens of the prompt that such a request would have."""
    context.select_engine(body.model)
    check_body(body, context)
    chat = parse_chat(body, context)
    if body.context_management is not None:
        await edit_conversation(body.context_management, chat, context)
    prompt = await prepare_chat(chat, context)
    return json_reply({"input_tokens": len(prompt.tokens)}, context)
