"""How a chat template writes calls of earlier turns, from which formats are derived or fitted."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

# The tools and arguments of the calls, and the text before them. Sorting does not change the order.
NAME, SECOND_NAME = "qq_tool", "qq_unary"
ARGUMENTS = {"qq_a": "qq_text", "qq_b": 9876543}
_TEXT = "QqTextqQ"
MAX_MARKER = 64
_UNFINISHED_MARKER = re.compile(r"[<\[][^<>\[\]\s]*$")

Calls = Sequence[tuple[str, dict[str, Any]]]
Render = Callable[[str, Calls], str | None]


@dataclass(frozen=True)
class RenderedCalls:
    """The rendered texts, from the first character of the calls to the last.

    one: a call of NAME with ARGUMENTS. empty: a call of SECOND_NAME without arguments. two: both; None: the
    template renders one call per message. python: it writes a true argument as `True`, not as JSON.
    """

    one: str
    empty: str
    two: str | None
    python: bool = False


def render_calls(render: Render, prompt: str, several: bool) -> RenderedCalls | None:
    """render: renders the conversation with an answer of this text and these calls. prompt: the prompt
    without the answer.
    """
    plain = render(_TEXT, ())
    if plain is None or _TEXT not in plain:
        return None
    end = plain.rpartition(_TEXT)[2]

    def answer(*calls: tuple[str, dict[str, Any]]) -> str | None:
        whole = render(_TEXT, calls)
        if whole is not None and _TEXT in whole:
            return whole.rpartition(_TEXT)[2].removesuffix(end).strip()
        whole = render("", calls)  # some templates write no text with calls
        return None if whole is None else whole[common_length(prompt, whole) :].removesuffix(end).strip()

    one, empty = answer((NAME, ARGUMENTS)), answer((SECOND_NAME, {}))
    if one is None or empty is None or NAME not in one or SECOND_NAME not in empty:
        return None
    two = answer((NAME, ARGUMENTS), (SECOND_NAME, {})) if several else None
    true = answer((NAME, {next(iter(ARGUMENTS)): True}))
    two = two if two is not None and SECOND_NAME in two else None
    return RenderedCalls(one, empty, two, true is not None and "True" in true)


def common_length(a: str, b: str) -> int:
    """The length of the common prefix of two texts, without a partial marker at its end."""
    i = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    opening = _UNFINISHED_MARKER.search(b, max(i - MAX_MARKER, 0), i)
    return i if opening is None else opening.start()
