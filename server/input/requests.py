"""The input processor's request types, in addition to `server.chat.request.ChatInput`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from server.chat.request import RequestedConstraint

RawPrompt = str | Sequence[int] | Sequence[int | str]  # text, token ids, or both in turn


@dataclass(frozen=True)
class CompletionInput:
    """Prompts to continue. suffix: the text after the gap to fill."""

    prompts: Sequence[RawPrompt]
    constraint: RequestedConstraint | None = None
    suffix: str | None = None
