"""Chat templates of tests, which share one process that renders them."""

from __future__ import annotations

from typing import Any

from server.chat.chat_format import load_chat_formats
from server.chat.prompt import ChatFormats
from server.chat.template.render import ChatTemplate, TemplateSandbox
from support.builders.vocabularies import models_dir
from support.fakes.engine import tokenizer

SANDBOX = TemplateSandbox(cpu_s=0.5)
SPECIAL_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
TALK: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi <there> 'é' \"🍕\""},
    {"role": "assistant", "content": " yes \n"},
    {"role": "user", "content": ""},
]
# A template that knows neither tools nor reasoning.
PLAIN = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
PLAIN += "{% if add_generation_prompt %}[me]{% endif %}"


def chat_template(source: str) -> ChatTemplate:
    return ChatTemplate(source, SANDBOX, SPECIAL_TOKENS)


def render(source: str, messages: list[dict[str, Any]] = TALK, **options: Any) -> str:
    return chat_template(source).render(messages, **options)


def published_source(name: str) -> str:
    """Of a template in llama.cpp's collection."""
    return (models_dir() / "templates" / f"{name}.jinja").read_text(encoding="utf-8")


def chat_formats(source: str) -> ChatFormats:
    """Of a template and the bundled model's vocabulary."""
    formats = load_chat_formats(tokenizer(), source)
    assert isinstance(formats, ChatFormats)
    return formats


def published_formats(name: str) -> ChatFormats:
    return chat_formats(published_source(name))
