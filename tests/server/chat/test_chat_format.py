"""Which templates a model has, what is derived from them, and which control tokens a parser must see."""

from __future__ import annotations

from typing import Any

from server.chat.chat_format import load_chat_format, load_chat_formats
from server.chat.prompt import ChatFormats, Prompt
from server.chat.template.render import TemplateFailed
from server.chat.tool_calls.tool_call_format import ToolOptions
from support.api.templates import SANDBOX, published_source
from support.api.tools import TOOLS
from support.fakes.engine import tokenizer

PLAIN = "{% for m in messages %}{{ m.content }}{% endfor %}"


class Tokenizer:
    """The bundled model's, with other attributes."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update({"chat_template": None, "chat_template_tool_use": None, **attributes})

    def __getattr__(self, name: str) -> Any:
        return getattr(tokenizer(), name)


def test_model_without_template_has_no_formats() -> None:
    assert load_chat_formats(Tokenizer()) is None


def test_broken_template_gives_a_failure() -> None:
    assert isinstance(load_chat_formats(Tokenizer(chat_template="{% for")), TemplateFailed)


def test_one_template_serves_requests_with_and_without_tools() -> None:
    for fields in ({"chat_template": PLAIN}, {"chat_template_tool_use": PLAIN}):
        formats = load_chat_formats(Tokenizer(**fields))
        assert isinstance(formats, ChatFormats)
        assert formats.plain is formats.with_tools


def test_template_for_tools_serves_requests_with_tools() -> None:
    formats = load_chat_formats(Tokenizer(chat_template=PLAIN, chat_template_tool_use="tools" + PLAIN))
    assert isinstance(formats, ChatFormats)
    assert formats.plain.template.source == PLAIN
    assert formats.with_tools.template.source == "tools" + PLAIN


def test_unknown_markers_of_calls_are_derived_from_a_rendered_call() -> None:
    chat_format = load_chat_format(published_source("MiniMax-M1"), tokenizer(), SANDBOX)
    assert chat_format.call_format.name == "derived"
    assert chat_format.call_format.markers == ("<tool_calls>", "</tool_calls>")


def test_preserved_tokens_are_markers_that_are_control_tokens() -> None:
    source = published_source("openai-gpt-oss-120b")  # shares <|end|> with the bundled model
    chat_format = load_chat_format(source, tokenizer(), SANDBOX)
    end = tokenizer().vocabulary.ids["<|end|>"]
    calling = Prompt(chat_format=chat_format, in_content=True, tools=ToolOptions(TOOLS))
    assert calling.preserved_tokens() == {end}
    assert Prompt(chat_format=chat_format).preserved_tokens() == {end}  # of reasoning
    assert Prompt(chat_format=chat_format, in_content=True).preserved_tokens() == frozenset()
