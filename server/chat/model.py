"""What chats need to know of a model, worked out once from its templates and vocabulary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.tokenizer.vocab import SPECIAL_TYPES
from server.chat.template import ChatTemplate, TemplateFailed
from server.chat.thinking import KNOWN, Marks, find_marks
from server.chat.tools.family import Family
from server.chat.tools.lark import Words
from server.chat.tools.registry import FAMILIES, family_of
from server.chat.traits import Traits, find_traits


@dataclass(frozen=True)
class Form:
    """One chat template and what it means for an answer."""

    template: ChatTemplate
    traits: Traits
    family: Family
    marks: Marks | None
    words: Words  # marks of formats that are one token each

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
    tokens = _mark_tokens(tokenizer)
    try:
        plain = _form(source, special, tokens)
        with_tools = plain if tool_source in (None, source) else _form(tool_source, special, tokens)
    except TemplateFailed as error:
        return error
    return ChatModel(plain, with_tools)


def _form(source: str, special: dict[str, str], tokens: dict[str, int]) -> Form:
    template = ChatTemplate(source, **special)
    traits = find_traits(template)
    return Form(template, traits, family_of(source), find_marks(source, tokens), Words(tokens))


def _mark_tokens(tokenizer: Any) -> dict[str, int]:
    """Marks of every format that are one token each, of those that are no ordinary text."""
    texts = {mark for family in FAMILIES for mark in family.marks}
    texts |= {text.strip() for marks in KNOWN for text in (marks.start, marks.end)}
    ids: dict[str, int] = tokenizer.vocabulary.ids
    types: list[int] = tokenizer.vocabulary.types
    return {text: ids[text] for text in texts if text in ids and types[ids[text]] in SPECIAL_TYPES}
