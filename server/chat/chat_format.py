"""The chat formats of a model, determined once from its templates and vocabulary."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from engine.tokenizer.vocab import SPECIAL_TYPES, TokenType
from server.chat.accepted_forms import AcceptedForms
from server.chat.messages import adapt_messages
from server.chat.reasoning import KNOWN_MARKERS, ReasoningMarkers, find_reasoning_markers
from server.chat.template.capabilities import (
    TemplateCapabilities,
    probe_capabilities,
    template_variables,
)
from server.chat.template.render import ChatTemplate
from server.chat.template.sandbox import TemplateFailed, TemplateSandbox
from server.chat.tool_calls.derived import ARGUMENTS, NAME, derive_format
from server.chat.tool_calls.generic import GenericFormat
from server.chat.tool_calls.grammar import GrammarTerminals
from server.chat.tool_calls.registry import detect_tool_call_format
from server.chat.tool_calls.tool import make_tool
from server.chat.tool_calls.tool_call_format import ToolCallFormat

CONTROL_TYPES = frozenset((TokenType.CONTROL, TokenType.UNKNOWN))


@dataclass(frozen=True)
class ChatFormat:
    """One chat template and what follows from it for prompts and outputs."""

    template: ChatTemplate
    capabilities: TemplateCapabilities
    call_format: ToolCallFormat
    markers: ReasoningMarkers | None  # of reasoning; None: the model does not reason
    terminals: GrammarTerminals
    accepted_forms: AcceptedForms = field(default_factory=AcceptedForms, compare=False)

    def preserved_tokens(self, calls: bool, reasoning: bool) -> frozenset[int]:
        """Special tokens whose text the output parser must see."""
        texts = set(self.call_format.markers if calls else ())
        if reasoning and self.markers is not None:
            texts |= {self.markers.start.strip(), self.markers.end.strip()}
        return frozenset(id for text, id in self.terminals.tokens.items() if text in texts)


@dataclass(frozen=True)
class ChatFormats:
    """with_tools: for requests with tools, if the model has a template of its own for them; else as plain."""

    plain: ChatFormat
    with_tools: ChatFormat


def load_chat_formats(tokenizer: Any, source: str | None = None) -> ChatFormats | TemplateFailed | None:
    """Of a model's templates, or of `source` in their place. None: the model has no template.

    Takes some 0.2 s: a process for its templates is started and they are probed.
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
    """Raises TemplateFailed."""
    special_tokens = {
        f"{name}_token": tokenizer.token_text(id)
        for name in ("bos", "eos", "unk", "sep", "pad", "mask")
        if (id := getattr(tokenizer, f"{name}_id", None)) is not None
    }
    template = ChatTemplate(source, sandbox, special_tokens)
    capabilities = probe_capabilities(template)
    call_format = detect_tool_call_format(source)
    if isinstance(call_format, GenericFormat) and capabilities.tools and capabilities.calls:
        call_format = _derived(template, capabilities) or call_format
    return ChatFormat(
        template,
        capabilities,
        call_format,
        find_reasoning_markers(source, lambda text: _is_token(text, tokenizer, SPECIAL_TYPES)),
        GrammarTerminals(_control_tokens(tokenizer, call_format)),
    )


def _derived(template: ChatTemplate, capabilities: TemplateCapabilities) -> ToolCallFormat | None:
    """The format in which the template renders a tool call, if it can be recognized."""
    tools = [make_tool(NAME, None, {"type": "object", "properties": {"qq_argument": {}}}, None, "").wire()]
    function = {"name": NAME, "arguments": json.dumps(ARGUMENTS)}
    call = {"id": "call00001", "type": "function", "function": function}
    conversation: list[dict[str, Any]] = [{"role": "user", "content": "Hello"}]

    def render(with_call: bool) -> str | None:
        answer = [{"role": "assistant", "content": "", "tool_calls": [call]}] if with_call else []
        try:
            return template.render(
                adapt_messages([*conversation, *answer], capabilities),
                tools=tools,
                add_generation_prompt=not with_call,
                extra=template_variables(template.source, tools),
            )
        except TemplateFailed:
            return None

    return derive_format(render)


def _control_tokens(tokenizer: Any, call_format: ToolCallFormat) -> dict[str, int]:
    """Markers that are control tokens, which have no text in the output unless they are preserved."""
    texts = {
        *call_format.markers,
        *(text.strip() for markers in KNOWN_MARKERS for text in (markers.start, markers.end)),
    }
    ids: dict[str, int] = tokenizer.vocabulary.ids
    return {text: ids[text] for text in texts if _is_token(text, tokenizer, CONTROL_TYPES)}


def _is_token(text: str, tokenizer: Any, types: frozenset[TokenType]) -> bool:
    id = tokenizer.vocabulary.ids.get(text.strip())
    return id is not None and tokenizer.vocabulary.types[id] in types
