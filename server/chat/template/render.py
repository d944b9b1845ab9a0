"""The chat template of a model: messages → prompt text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2.exceptions import SecurityError, TemplateError

from server.chat.template.budget import Budget, TemplateLimit, use
from server.chat.template.environment import TemplateEnvironment

MAX_SOURCE = 1 << 18
MAX_OUTPUT = 1 << 24
_RESERVED = frozenset(
    [
        "messages",
        "tools",
        "add_generation_prompt",
        "raise_exception",
        "strftime_now",
        "range",
        "dict",
        "namespace",
    ]
)


class TemplateFailed(Exception):
    """The template cannot be used, or not for these messages. Its text is for the client."""


class ChatTemplate:
    """A compiled template. Thread-safe."""

    def __init__(self, source: str, bos_token: str = "", eos_token: str = "", **tokens: str) -> None:
        """tokens: texts of further special tokens, by the names that templates know: `unk_token`, …"""
        if len(source) > MAX_SOURCE:
            raise TemplateFailed(f"the model's chat template has more than {MAX_SOURCE} characters")
        self.source = source
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token, **tokens}
        use(Budget(seconds=0.5))
        try:
            self._template = TemplateEnvironment().from_string(source)
        except (TemplateError, TemplateLimit, RecursionError, SyntaxError, MemoryError, ValueError) as error:
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise TemplateFailed(f"the model's chat template cannot be used: {reason}") from error

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        extra: Mapping[str, Any] | None = None,
        seconds: float | None = None,
    ) -> str:
        """The prompt. Raises TemplateFailed. Bounded in time, but not for the event loop."""
        for name in extra or ():
            if name in _RESERVED or name in self._tokens or not name.isidentifier():
                raise TemplateFailed(f"chat_template_kwargs: {name[:64]!r} cannot be set")
        shown = [dict(message) for message in messages]
        size = sum(len(str(value)) for message in shown for value in message.values())
        budget = Budget(size) if seconds is None else Budget(size, seconds)
        use(budget)
        variables = {
            "documents": None,
            **(extra or {}),
            **self._tokens,
            "messages": shown,
            "tools": tools,
            "add_generation_prompt": add_generation_prompt,
        }
        try:
            budget.measure(variables)
            context = self._template.new_context(variables)
            pieces, length = [], 0
            for piece in self._template.root_render_func(context):
                budget.step()
                length += len(piece)
                if length > MAX_OUTPUT:
                    raise TemplateLimit("the chat template makes too much text")
                pieces.append(piece)
            return "".join(pieces)
        except SecurityError:
            raise TemplateFailed("the model's chat template does something that is not allowed") from None
        except (TemplateError, TemplateLimit) as error:
            text = " ".join(str(error).split())[:500]
            raise TemplateFailed(f"the model's chat template refuses these messages: {text}") from error
        except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
            # Python's own text may hold addresses (a repr), so only its kind is told.
            kind = type(error).__name__
            raise TemplateFailed(f"the model's chat template fails on these messages ({kind})") from error
