"""What one rendering of a chat template may use: steps, characters, time.

Jinja's sandbox keeps a template from reaching the system, not from running for ever or filling memory
(`range` in `range`, a list that holds itself twice, `'%99999999d'`). Whatever can loop or grow reports here.
"""

from __future__ import annotations

import time
from contextvars import ContextVar
from typing import Any

from jinja2.utils import Namespace

MAX_STEPS = 1_000_000
MAX_WEIGHT = 100_000  # elements of one list or dict, nested ones included
BASE_CHARS = 1 << 24
PROBE_TIMEOUT_S = 2.0


class TemplateLimit(Exception):
    """The template takes too long or makes too much."""


class Budget:
    def __init__(self, input_chars: int = 0, seconds: float = PROBE_TIMEOUT_S) -> None:
        self.steps = MAX_STEPS
        self.chars = BASE_CHARS + 32 * input_chars  # a template may copy what it got a few times
        self.weight = max(MAX_WEIGHT, 4 * input_chars)
        self.deadline = time.monotonic() + seconds

    def step(self, n: int = 1) -> None:
        self.steps -= n
        if self.steps < 0:
            raise TemplateLimit("the chat template runs too many steps")
        if time.monotonic() > self.deadline:
            raise TemplateLimit("the chat template runs too long")

    def text(self, n: int) -> None:
        """`n` characters are about to be made."""
        self.chars -= n
        if self.chars < 0:
            raise TemplateLimit("the chat template makes too much text")

    def measure(self, value: Any) -> int:
        """Characters that str(value) has at least; refuses lists that nest themselves into hugeness."""
        if isinstance(value, str):
            return len(value)
        if not isinstance(value, list | tuple | dict | Namespace):
            return 32
        todo, weight, chars = [value], 0, 0
        while todo:
            item = todo.pop()
            weight += 1
            if weight > self.weight:
                raise TemplateLimit("the chat template makes too large a list")
            if isinstance(item, str):
                chars += len(item)
            elif isinstance(item, list | tuple):
                todo.extend(item)
            elif isinstance(item, dict):
                todo.extend(item)
                todo.extend(item.values())
            elif isinstance(item, Namespace):
                todo.append(object.__getattribute__(item, "_Namespace__attrs"))  # it hides even its dict
        self.step(weight // 8)
        return chars + 2 * weight


_current: ContextVar[Budget] = ContextVar("template_budget")


def current() -> Budget:
    """The budget of the rendering that runs in this thread."""
    try:
        return _current.get()
    except LookupError:  # constants folded while compiling
        return Budget(seconds=0.5)


def use(budget: Budget) -> None:
    _current.set(budget)
