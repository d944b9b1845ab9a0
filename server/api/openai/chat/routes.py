"""POST /v1/chat/completions, and llama-server's routes for the same messages."""

from __future__ import annotations

from dataclasses import replace

from fastapi import Request, Response

from server.api.common.replies.native_completion import verbose_completion
from server.api.common.requests.parser import check_fields
from server.api.openai.chat.parser import parse_chat, parse_options
from server.api.openai.chat.schema import ChatReply, ChatRequest, TemplateReply, TemplateRequest
from server.api.openai.choice_formatter import ChatFormatter
from server.api.openai.responses.schema import InputTokensReply
from server.dependencies import ContextDep
from server.http.json_reply import json_reply
from server.http.json_route import json_router
from server.http.sse import respond
from server.input.processor import chat_text, prepare_chat, process_chat

router = json_router()


@router.post("/v1/chat/completions", response_model=None, responses={200: {"model": ChatReply}})
@router.post("/chat/completions", response_model=None, include_in_schema=False)
async def chat_completions(body: ChatRequest, request: Request, context: ContextDep) -> Response:
    """Reply to a conversation. With `stream` the response is server-sent events that end with `[DONE]`."""
    context.select_engine(body.model)
    options = parse_options(body, context)
    job = await process_chat(parse_chat(body, context), options, context)
    is_verbose = context.debug if body.verbose is None else body.verbose
    verbose = await verbose_completion(job) if is_verbose else None
    return await respond(request, ChatFormatter(job, verbose))


@router.post(
    "/v1/chat/completions/input_tokens", response_model=None, responses={200: {"model": InputTokensReply}}
)
@router.post("/chat/completions/input_tokens", response_model=None, include_in_schema=False)
async def input_tokens(body: ChatRequest, context: ContextDep) -> Response:
    """Count the tokens of the prompt that such a request would have."""
    context.select_engine(body.model)
    check_fields(body, context)
    chat = replace(parse_chat(body, context), answer=None)  # checked, though it does not change the prompt
    prompt = await prepare_chat(chat, context)
    return json_reply({"object": "response.input_tokens", "input_tokens": len(prompt.tokens)}, context)


@router.post("/apply-template", response_model=None, responses={200: {"model": TemplateReply}})
async def apply_template(body: TemplateRequest, context: ContextDep) -> Response:
    """Render messages with the model's chat template."""
    context.select_engine(body.model)
    check_fields(body, context)
    return json_reply({"prompt": await chat_text(parse_chat(body, context), context)}, context)
