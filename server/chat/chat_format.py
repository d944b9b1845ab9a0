"""A model's chat formats, determined once from its templates and vocabulary."""

from __future__ import annotations

import json
from typing import Any

from engine.tokenizer.vocab import SPECIAL_TYPES, TokenType
from server.chat.messages import adapt_messages
from server.chat.prompt import ChatFormat, ChatFormats
from server.chat.reasoning import KNOWN_MARKERS, find_reasoning_markers
from server.chat.request import Tool
from server.chat.template.capabilities import TemplateCapabilities, probe_capabilities
from server.chat.template.render import ChatTemplate, TemplateFailed, TemplateSandbox
from server.chat.tool_calls.derived import derive_format
from server.chat.tool_calls.generic import GenericFormat
from server.chat.tool_calls.grammar import GrammarTerminals
from server.chat.tool_calls.registry import detect_tool_call_format
from server.chat.tool_calls.rendered_calls import (
    ARGUMENTS,
    NAME,
    SECOND_NAME,
    Calls,
    RenderedCalls,
    render_calls,
)
from server.chat.tool_calls.tool_call_format import ToolCallFormat

CONTROL_TYPES = frozenset((TokenType.CONTROL, TokenType.UNKNOWN))


def load_chat_formats(tokenizer: Any, source: str | None = None) -> ChatFormats | TemplateFailed | None:
    """The formats of a model's templates, or of `source` in their place. None: the model has no template.

    Takes some 0.2 s, to start a process for the templates and to probe them.
    """
    tool_source = None if source else getattr(tokenizer, "chat_template_tool_use", None)
    source = source or tokenizer.chat_template or tool_source
    if not source:
        return None
    sandbox = TemplateSandbox()
    try:
        plain = load_chat_format(source, tokenizer, sandbox)
        if tool_source in (None, source):
            return ChatFormats(plain, plain)
        return ChatFormats(plain, load_chat_format(tool_source, tokenizer, sandbox))
    except TemplateFailed as error:
        return error


def load_chat_format(source: str, tokenizer: Any, sandbox: TemplateSandbox) -> ChatFormat:
    """The format of one template. Raises TemplateFailed."""
    special_tokens = {
        f"{name}_token": tokenizer.token_text(id)
        for name in ("bos", "eos", "unk", "sep", "pad", "mask")
        if (id := getattr(tokenizer, f"{name}_id", None)) is not None
    }
    template = ChatTemplate(source, sandbox, special_tokens)
    capabilities = probe_capabilities(template)
    call_format = detect_tool_call_format(source)
    if capabilities.calls and (calls := _rendered_calls(template, capabilities)) is not None:
        if not isinstance(call_format, GenericFormat):
            call_format = call_format.fitted(calls)
        elif capabilities.tools:
            call_format = derive_format(calls) or call_format
    return ChatFormat(
        template,
        capabilities,
        call_format,
        find_reasoning_markers(
            source + _rendered_reasoning(template, capabilities),
            lambda text: _is_token(text, tokenizer, SPECIAL_TYPES),
        ),
        GrammarTerminals(_control_tokens(tokenizer, call_format)),
    )


def _rendered_reasoning(template: ChatTemplate, capabilities: TemplateCapabilities) -> str:
    """A rendered conversation with reasoning, for markers that the template's source has only in parts."""
    answer = {"role": "assistant", "content": "Yes", "reasoning_content": "Hm"}
    messages = adapt_messages([{"role": "user", "content": "Hello"}, answer], capabilities)
    try:
        return template.render(messages, add_generation_prompt=False)
    except TemplateFailed:
        return ""


def _rendered_calls(template: ChatTemplate, capabilities: TemplateCapabilities) -> RenderedCalls | None:
    """How the template writes calls; None if no syntax can be derived from it."""
    parameters = {"type": "object", "properties": {key: {"description": "an argument"} for key in ARGUMENTS}}
    tools = [Tool(name, "a tool", parameters, None, "").wire() for name in (NAME, SECOND_NAME)]
    conversation: list[dict[str, Any]] = [{"role": "user", "content": "Hello"}]

    def render(answer: list[dict[str, Any]]) -> str | None:
        try:
            return template.render(
                adapt_messages([*conversation, *answer], capabilities),
                tools=tools,
                add_generation_prompt=not answer,
            )
        except TemplateFailed:
            return None

    def answer(content: str, calls: Calls) -> str | None:
        message: dict[str, Any] = {"role": "assistant", "content": content}
        if calls:
            message["tool_calls"] = [
                {
                    "id": f"call0000{i}",
                    "type": "function",
                    "function": {"name": name, "arguments": json.dumps(arguments)},
                }
                for i, (name, arguments) in enumerate(calls)
            ]
        return render([message])

    prompt = render([])
    return None if prompt is None else render_calls(answer, prompt, capabilities.parallel_calls)


def _control_tokens(tokenizer: Any, call_format: ToolCallFormat) -> dict[str, int]:
    """Control tokens within markers. Their text is in the output only if they are preserved."""
    texts = (
        *call_format.markers,
        *(text.strip() for markers in KNOWN_MARKERS for text in (markers.start, markers.end)),
    )
    vocabulary = tokenizer.vocabulary
    return {
        text: id
        for text, id in vocabulary.ids.items()
        if vocabulary.types[id] in CONTROL_TYPES and text and any(text in whole for whole in texts)
    }


def _is_token(text: str, tokenizer: Any, types: frozenset[TokenType]) -> bool:
    id = tokenizer.vocabulary.ids.get(text.strip())
    return id is not None and tokenizer.vocabulary.types[id] in types
