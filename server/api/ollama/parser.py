"""Parses Ollama's requests into a `ChatInput` or `CompletionInput`, and `GenerationOptions`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from server.api.common.requests import parser as shared
from server.api.common.requests.keep_alive import set_keep_alive
from server.api.common.requests.parser import parse_calls, parse_tools
from server.api.common.requests.structured_output import schema_constraint
from server.api.ollama.schema import (
    OllamaChatRequest,
    OllamaFields,
    OllamaGenerateRequest,
    OllamaMessage,
    OllamaModelFields,
    OllamaOptions,
)
from server.chat.request import ChatInput, ReasoningOptions, RequestedConstraint, ToolChoice
from server.errors import unsupported, wrong
from server.generation.options import GenerationOptions
from server.generation.request_context import RequestContext
from server.input.completion import CompletionInput, RawPrompt


def parse_options(body: OllamaFields, context: RequestContext) -> GenerationOptions:
    """The fields that do not become part of the prompt. Warns about those without effect."""
    options = body.options or OllamaOptions()
    check_shared(body, options.model_extra, context)
    n_ctx = context.engine.n_ctx
    if options.num_ctx not in (None, n_ctx):
        context.warn(f"options.num_ctx has no effect: the context has {n_ctx} tokens (--context-size)")
    return shared.generation_options(
        options,
        context,
        id_prefix="ollama-",
        stream=body.stream is not False,
        reports=False,
        max_tokens=None if options.num_predict is None else max(options.num_predict, -1),
        limit_field="options.num_predict",
        logprobs=shared.requested_logprobs(body),
        return_tokens=bool(options.return_tokens)
        or (isinstance(body, OllamaGenerateRequest) and not body.raw),
    )


def check_shared(body: OllamaModelFields, options: Mapping[str, Any] | None, context: RequestContext) -> None:
    """Apply `keep_alive`. Warn about unknown fields and options without effect."""
    shared.check_fields(body, context)
    if body.keep_alive is not None:
        set_keep_alive(body.keep_alive, context)
    shared.warn_of_unknown(options, "options", context)


def parse_input(
    body: OllamaFields, context: RequestContext, *, has_template: bool
) -> ChatInput | CompletionInput:
    """A conversation or prompt to answer, or a text to continue; validated except for what depends on the
    model.
    """
    if isinstance(body, OllamaChatRequest):
        messages = [_message(item, f"messages[{i}]", context) for i, item in enumerate(body.messages or ())]
        tools = parse_tools(body.tools, context) if body.tools else ()
        return _chat(body, messages, tools=tools, tool_choice=ToolChoice(body.tool_choice or "auto"))
    assert isinstance(body, OllamaGenerateRequest)
    prompt, before = body.prompt or "", body.context or []
    if body.images:
        raise shared.no_media("images", "image")
    if body.template:
        raise unsupported("template", "is not supported; send the whole prompt with raw: true")
    for name in ("system", "context"):
        if body.raw and getattr(body, name):
            raise wrong(name, "raw mode does not support template, system, or context")
    if max(before, default=0) >= context.engine.tokenizer.n_vocab:
        raise wrong("context", f"token ids go from 0 to {context.engine.tokenizer.n_vocab - 1}")
    if has_template and not body.raw and not body.suffix:
        texts = {"system": body.system, "user": prompt}
        messages = [{"role": role, "content": text} for role, text in texts.items() if text]
        return _chat(body, messages, param="prompt", numbered_messages=False, before=before)
    why = "raw is true" if body.raw else "suffix is set" if body.suffix else "the model has no chat template"
    for name in ("system", "think", *(("context",) if body.suffix else ())):
        if getattr(body, name):
            context.warn(f"{name} has no effect: {why}")
    whole: RawPrompt = [*before, prompt] if before and not body.suffix else prompt
    return CompletionInput([whole], _constraint(body), suffix=body.suffix)


def _chat(body: OllamaFields, messages: list[dict[str, Any]], **fields: Any) -> ChatInput:
    effort = body.think if isinstance(body.think, str) else None
    reasoning = ReasoningOptions(effort=effort, enabled=None if body.think is None else bool(body.think))
    return ChatInput(messages, reasoning=reasoning, answer=_constraint(body), **fields)


def _constraint(body: OllamaFields) -> RequestedConstraint | None:
    schema = {} if body.format == "json" else body.format
    return None if schema is None or schema == "" else schema_constraint(schema, "format")


def _message(message: OllamaMessage, where: str, context: RequestContext) -> dict[str, Any]:
    shared.warn_of_unknown(message.model_extra, where, context)
    if message.images:
        raise shared.no_media(f"{where}.images", "image")
    for name in ("thinking", "tool_calls"):
        if getattr(message, name) and message.role != "assistant":
            raise wrong(f"{where}.{name}", "only assistant messages can have this field")
    parsed: dict[str, Any] = {"role": message.role, "content": message.content or ""}
    calls = parse_calls(message.tool_calls, where, context) if message.tool_calls else ()
    parsed |= {"reasoning_content": message.thinking, "tool_calls": calls}
    if message.role == "tool":
        parsed |= {"tool_call_id": message.tool_call_id or "", "name": message.tool_name or ""}
    elif message.tool_name or message.tool_call_id:
        context.warn(f"{where}: tool_name and tool_call_id have no effect: the role is not tool")
    return parsed
