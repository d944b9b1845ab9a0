"""A model's chat template, which renders messages to prompt text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from server.chat.template.sandbox import TemplateFailed, TemplateSandbox

MAX_SOURCE = 1 << 18
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


class ChatTemplate:
    """A template that is known to compile. Thread-safe.

    special_tokens: their texts, by the names that templates use: `bos_token`, `eos_token`, `unk_token`, …
    """

    def __init__(self, source: str, sandbox: TemplateSandbox, special_tokens: Mapping[str, str]) -> None:
        """Raises TemplateFailed."""
        if len(source) > MAX_SOURCE:
            raise TemplateFailed(f"the model's chat template has more than {MAX_SOURCE} characters")
        sandbox.compile(source)
        self.source = source
        self._sandbox = sandbox
        self._special_tokens = {"bos_token": "", "eos_token": "", **special_tokens}

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        extra: Mapping[str, Any] | None = None,
    ) -> str:
        """Render the prompt. extra: further variables. Raises TemplateFailed. Blocks, so do not call it in
        the event loop.
        """
        for name in extra or ():
            if name in _RESERVED or name in self._special_tokens or not name.isidentifier():
                raise TemplateFailed(f"chat_template_kwargs: {name[:64]!r} cannot be set")
        variables = {
            "documents": None,
            **(extra or {}),
            **self._special_tokens,
            "messages": messages,
            "tools": tools,
            "add_generation_prompt": add_generation_prompt,
        }
        return self._sandbox.render(self.source, variables)
