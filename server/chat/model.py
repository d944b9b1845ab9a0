"""What chats need to know of a model, worked out once from its templates and vocabulary."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from engine.tokenizer.vocab import SPECIAL_TYPES, TokenType
from server.chat.messages import fit
from server.chat.reasoning import KNOWN, Marks, find_marks
from server.chat.template.capabilities import SECONDS, Traits, find_traits, template_variables
from server.chat.template.render import ChatTemplate, TemplateFailed
from server.chat.tool_calls.derived import ARGUMENTS, NAME, derive
from server.chat.tool_calls.family import Family
from server.chat.tool_calls.generic import Generic
from server.chat.tool_calls.grammar import Words
from server.chat.tool_calls.registry import family_of
from server.chat.tool_calls.tool import make_tool

HIDDEN_TYPES = frozenset((TokenType.CONTROL, TokenType.UNKNOWN))


@dataclass(frozen=True)
class Form:
    """One chat template and what it means for an answer."""

    template: ChatTemplate
    traits: Traits
    family: Family
    marks: Marks | None
    words: Words  # for grammars: marks that are control tokens

    def kept(self, calls: bool, reasoning: bool) -> frozenset[int]:
        """Special tokens whose text a parser must see."""
        texts = set(self.family.marks if calls else ())
        if reasoning and self.marks is not None:
            texts |= {self.marks.start.strip(), self.marks.end.strip()}
        return frozenset(id for text, id in self.words.tokens.items() if text in texts)


@dataclass(frozen=True)
class ChatModel:
    """with_tools: the form of requests that offer tools, if the model has another template for them."""

    plain: Form
    with_tools: Form


def chat_model(tokenizer: Any, source: str | None = None) -> ChatModel | TemplateFailed | None:
    """From the templates of the file, or from one given in their place. None: there is none."""
    tool_source = None if source else getattr(tokenizer, "chat_template_tool_use", None)
    source = source or tokenizer.chat_template or tool_source
    if not source:
        return None
    special = {
        f"{name}_token": tokenizer.token_text(id)
        for name in ("bos", "eos", "unk", "sep", "pad", "mask")
        if (id := getattr(tokenizer, f"{name}_id", None)) is not None
    }
    try:
        plain = form_of(source, special, tokenizer)
        with_tools = plain if tool_source in (None, source) else form_of(tool_source, special, tokenizer)
    except TemplateFailed as error:
        return error
    return ChatModel(plain, with_tools)


def form_of(source: str, special: dict[str, str], tokenizer: Any) -> Form:
    """special: texts of special tokens, by the names that templates know. Raises TemplateFailed."""
    template = ChatTemplate(source, **special)
    traits = find_traits(template)
    family = family_of(source)
    if isinstance(family, Generic) and traits.tools and traits.calls:
        family = _derived(template, traits) or family
    return Form(
        template,
        traits,
        family,
        find_marks(source, lambda text: _is_token(text, tokenizer, SPECIAL_TYPES)),
        Words(_hidden(tokenizer, family)),
    )


def _derived(template: ChatTemplate, traits: Traits) -> Family | None:
    """From how the template writes a call of a tool."""
    tools = [make_tool(NAME, None, {"type": "object", "properties": {"qq_argument": {}}}, None, "").wire()]
    function = {"name": NAME, "arguments": json.dumps(ARGUMENTS)}
    call = {"id": "call00001", "type": "function", "function": function}
    talk: list[dict[str, Any]] = [{"role": "user", "content": "Hello"}]

    def render(called: bool) -> str | None:
        messages = [*talk, {"role": "assistant", "content": "", "tool_calls": [call]}] if called else talk
        try:
            return template.render(
                fit(messages, traits),
                tools=tools,
                add_generation_prompt=not called,
                extra=template_variables(template.source, tools),
                seconds=SECONDS,
            )
        except TemplateFailed:
            return None

    return derive(render)


def _hidden(tokenizer: Any, family: Family) -> dict[str, int]:
    """Marks that are tokens of the format, which are no text unless one asks."""
    texts = {*family.marks, *(text.strip() for marks in KNOWN for text in (marks.start, marks.end))}
    ids: dict[str, int] = tokenizer.vocabulary.ids
    return {text: ids[text] for text in texts if _is_token(text, tokenizer, HIDDEN_TYPES)}


def _is_token(text: str, tokenizer: Any, types: frozenset[TokenType]) -> bool:
    id = tokenizer.vocabulary.ids.get(text.strip())
    return id is not None and tokenizer.vocabulary.types[id] in types
