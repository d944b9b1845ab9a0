"""From requests of Ollama's API to a `ChatInput` or `CompletionInput`, and `GenerationOptions`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from server.api.common.requests.generation_fields import SequenceFields
from server.api.common.requests.generation_options import check_fields, generation_options, sampling_fields
from server.api.common.requests.json_reader import json_text, missing, no_media, unsupported, used_name, wrong
from server.api.common.requests.structured_output import schema_constraint
from server.api.common.requests.tools import parse_tool, warn_of_unknown
from server.api.ollama.schema import (
    OllamaCall,
    OllamaChatRequest,
    OllamaFields,
    OllamaGenerateRequest,
    OllamaNameRequest,
    OllamaOptions,
)
from server.chat.request import ChatInput, ReasoningOptions, RequestedConstraint
from server.chat.tool_calls.tool import ToolChoice
from server.generation.options import GenerationOptions
from server.generation.request_context import RequestContext
from server.input.requests import CompletionInput, RawPrompt

_NAMES = {name: f"options.{name}" for name in SequenceFields.model_fields}


def parse_options(
    body: OllamaFields, context: RequestContext, *, return_tokens: bool = False
) -> GenerationOptions:
    """The fields that do not become the prompt. Warns of those without effect."""
    check_fields(body, context)
    if body.top_logprobs is not None and not body.logprobs:
        raise wrong("top_logprobs", "requires logprobs: true")
    options = body.options or OllamaOptions()
    warn_of_idle(body.keep_alive, options.model_extra, context)
    for name in ("timings_per_token", "return_progress"):
        if getattr(options, name):
            context.warn(f"options.{name} has no effect in this API")
    batch_size = used_name(options, ("num_batch", "batch_size", "n_batch"), "options.") or "batch_size"
    context.field_names = {**_NAMES, "batch_size": f"options.{batch_size}"}
    n_ctx = context.engine.n_ctx
    if options.num_ctx not in (None, n_ctx):
        context.warn(f"options.num_ctx has no effect: the context has {n_ctx} tokens (--context-size)")
    sampling = sampling_fields(options)
    if options.seed == -1:
        del sampling["seed"]
    return generation_options(
        options,
        context,
        id_prefix="ollama-",
        stream=body.stream is not False,
        sampling=sampling,
        batch_size=getattr(options, batch_size),
        max_tokens=None if options.num_predict is None else max(options.num_predict, -1),
        limit_field="options.num_predict",
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        return_tokens=return_tokens or bool(options.return_tokens),
    )


def warn_of_idle(
    keep_alive: float | str | None, options: Mapping[str, Any] | None, context: RequestContext
) -> None:
    """Of `keep_alive`, unless it is negative, which is forever, and of options without effect."""
    if keep_alive is not None and not str(keep_alive).startswith("-"):
        context.warn("keep_alive has no effect: models stay loaded")
    for name, value in (options or {}).items():
        if value is not None:
            context.warn(f"options.{name[:64]} has no effect")


def model_name(body: OllamaNameRequest, context: RequestContext) -> str:
    """Of a request that is about a model. Raises ApiError (400)."""
    check_fields(body, context)
    name = body.model or body.name
    if name is None:
        raise missing("model")
    if body.name not in (None, name):
        context.warn("name has no effect: model is set")
    return name


def _constraint(body: OllamaFields) -> RequestedConstraint | None:
    if body.format is None or body.format == "":
        return None
    return schema_constraint({} if body.format == "json" else body.format, "format")


def _reasoning(body: OllamaFields) -> ReasoningOptions:
    effort = body.think if isinstance(body.think, str) else None
    return ReasoningOptions(effort=effort, enabled=None if body.think is None else bool(body.think))


def parse_chat(body: OllamaChatRequest, context: RequestContext) -> ChatInput:
    """The conversation, checked except for what depends on the model."""
    return ChatInput(
        _conversation(body, context),
        tools=[parse_tool(tool, f"tools[{i}]", context) for i, tool in enumerate(body.tools or ())],
        tool_choice=ToolChoice(body.tool_choice or "auto"),
        reasoning=_reasoning(body),
        answer=_constraint(body),
    )


def parse_prompt(
    body: OllamaGenerateRequest, context: RequestContext, *, has_template: bool
) -> ChatInput | CompletionInput:
    """A prompt of /api/generate: a message to answer, or a text to continue."""
    prompt, before = body.prompt or "", body.context or []
    if body.images:
        raise no_media("images", "image")
    if body.template:
        raise unsupported("template", "is not supported; send the whole prompt with raw: true")
    for name in ("system", "context"):
        if body.raw and getattr(body, name):
            raise wrong(name, "raw mode does not support template, system, or context")
    if max(before, default=0) >= context.engine.tokenizer.n_vocab:
        raise wrong("context", f"token ids go from 0 to {context.engine.tokenizer.n_vocab - 1}")
    if has_template and not body.raw and not body.suffix:
        texts = {"system": body.system, "user": prompt}
        return ChatInput(
            [{"role": role, "content": text} for role, text in texts.items() if text],
            reasoning=_reasoning(body),
            answer=_constraint(body),
            param="prompt",
            numbered_messages=False,
            before=before,
        )
    why = "raw is true" if body.raw else "suffix is set" if body.suffix else "the model has no chat template"
    for name in ("system", "think", *(("context",) if body.suffix else ())):
        if getattr(body, name):
            context.warn(f"{name} has no effect: {why}")
    whole: RawPrompt = [*before, prompt] if before and not body.suffix else prompt
    return CompletionInput([whole], _constraint(body), suffix=body.suffix)


def _conversation(body: OllamaChatRequest, context: RequestContext) -> list[dict[str, Any]]:
    """Calls without an id get one, and results that of the first call without a result (of their tool)."""
    messages: list[dict[str, Any]] = []
    waiting = WaitingCalls()
    for i, message in enumerate(body.messages or ()):
        where = f"messages[{i}]"
        warn_of_unknown(message.model_extra, where, context)
        if message.images:
            raise no_media(f"{where}.images", "image")
        parsed: dict[str, Any] = {"role": message.role, "content": message.content or ""}
        if message.thinking:
            parsed["reasoning_content"] = message.thinking
        if message.tool_calls:
            calls = enumerate(message.tool_calls)
            parsed["tool_calls"] = [_call(call, i, j, context) for j, call in calls]
            for call in parsed["tool_calls"]:
                waiting.add(call["id"], call["function"]["name"])
        if message.role == "tool":
            tool = message.tool_name or ""
            id = message.tool_call_id or waiting.first(tool)
            waiting.remove(id)
            parsed |= {key: value for key, value in (("tool_call_id", id), ("name", tool)) if value}
        elif message.tool_name or message.tool_call_id:
            context.warn(f"{where}: tool_name and tool_call_id have no effect: the role is not tool")
        messages.append(parsed)
    return messages


class WaitingCalls:
    """Calls without a result, first come first; found without a search, for there may be very many."""

    def __init__(self) -> None:
        self._tools: dict[str, str] = {}  # by id
        self._ids: dict[str, dict[str, None]] = {}  # of each tool

    def add(self, id: str, tool: str) -> None:
        if self._tools.get(id, tool) != tool:
            self.remove(id)
        self._tools[id] = tool
        self._ids.setdefault(tool, {})[id] = None

    def first(self, tool: str) -> str:
        """The id of the first call of a tool, of any without its name; "" if there is none."""
        return next(iter(self._ids.get(tool, ()) if tool else self._tools), "")

    def remove(self, id: str) -> None:
        tool = self._tools.pop(id, None)
        if tool is not None:
            del self._ids[tool][id]


def _call(call: OllamaCall, i: int, j: int, context: RequestContext) -> dict[str, Any]:
    """Call j of message i."""
    where = f"messages[{i}].tool_calls[{j}]"
    warn_of_unknown(call.model_extra, where, context, silent=("type", "index"))
    warn_of_unknown(call.function.model_extra, f"{where}.function", context, silent=("index",))
    arguments = json_text(call.function.arguments or {}, f"{where}.function.arguments")
    function = {"name": call.function.name, "arguments": arguments}
    return {"id": call.id or f"call_{i}_{j}", "type": "function", "function": function}
