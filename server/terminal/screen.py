"""Shows answers on a terminal, as Markdown or plain text, or in a pipe.

A model's output never reaches the terminal with control characters, which could move the cursor, set the
title or worse.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Protocol, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.live import Live
from rich.markdown import Markdown
from rich.segment import Segment
from rich.spinner import Spinner
from rich.text import Text

from server.terminal.backend import Piece

REFRESH_S = 0.1
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def harmless(text: str) -> str:
    """The text with U+FFFD for every control character except tab and line feed."""
    return _CONTROL.sub("\ufffd", text)


class Screen(Protocol):
    """Shows one answer after another: `begin`, write its pieces, `end`."""

    def begin(self) -> None: ...

    def write(self, piece: Piece) -> None: ...

    def end(self) -> None: ...


class PlainScreen:
    """Writes content as it arrives, for pipes and --no-markdown. reasoning: whether to show it too."""

    def __init__(self, file: TextIO, *, reasoning: bool) -> None:
        self._file, self._reasoning = file, reasoning
        self._clean: Callable[[str], str] = harmless if file.isatty() else lambda text: text
        self._reasons = False

    def begin(self) -> None:
        self._reasons = False

    def write(self, piece: Piece) -> None:
        text = piece.content
        if self._reasoning and piece.reasoning:
            text = ("" if self._reasons else "(reasoning) ") + piece.reasoning
            self._reasons = True
            if piece.content:
                text += "\n\n" + piece.content
                self._reasons = False
        elif self._reasons and text:
            text, self._reasons = "\n\n" + text, False
        self._file.write(self._clean(text))
        self._file.flush()

    def end(self) -> None:
        self._file.write("\n")
        self._file.flush()


class MarkdownScreen:
    """Renders Markdown with rich: finished blocks are printed for good, the last is redrawn as it grows."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._live: Live | None = None

    def begin(self) -> None:
        self._open = self._reasoning = ""  # the block that may still grow
        self._shown_at = self._clock()
        self._printed = False
        self._live = Live(
            Spinner("dots", style="dim"), console=self._console, transient=True, refresh_per_second=8
        )
        self._live.start()

    def write(self, piece: Piece) -> None:
        self._reasoning += harmless(piece.reasoning)
        if piece.content and self._reasoning:
            self._print(_thought(self._reasoning))
            self._reasoning = ""
        self._open += harmless(piece.content)
        now = self._clock()
        if now - self._shown_at >= REFRESH_S:
            self._shown_at = now
            self._show()

    def end(self) -> None:
        if self._live is None:
            return
        self._live.stop()
        self._live = None
        if self._reasoning.strip():
            self._print(_thought(self._reasoning))
        if self._open.strip():
            self._print(_markdown(self._open))
        self._console.print()

    def _show(self) -> None:
        assert self._live is not None
        if self._reasoning:
            self._live.update(_Tail(_thought(self._reasoning)), refresh=True)
            return
        finished, self._open = split_blocks(self._open)
        for block in finished:
            self._print(_markdown(block))
        if self._open.strip():
            self._live.update(_Tail(_markdown(self._open)), refresh=True)

    def _print(self, block: RenderableType) -> None:
        if self._printed:
            self._console.print()
        self._console.print(block)
        self._printed = True


class _Tail:
    """The last lines of the output, as many as the terminal has room for."""

    def __init__(self, content: RenderableType) -> None:
        self._content = content

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        lines = console.render_lines(self._content, options.update(height=None), pad=False)
        for line in lines[-max(1, console.height - 2) :]:
            yield from line
            yield Segment.line()


def _markdown(text: str) -> Markdown:
    # Without hyperlinks the address of a link is printed: its text may name another one.
    return Markdown(text, hyperlinks=False)


def _thought(text: str) -> Text:
    return Text(text.strip(), style="dim italic")


def split_blocks(text: str) -> tuple[list[str], str]:
    """The blocks that are complete, and the last one, which may still grow.

    A line without a line break does not count: `2` may become the next item of a list.
    """
    whole = text[: text.rfind("\n") + 1]
    starts = [token.map[0] for token in Markdown(whole).parsed if token.level == 0 and token.map]
    if len(starts) < 2:
        return [], text
    lines = text.split("\n")
    blocks = ["\n".join(lines[a:b]) for a, b in pairwise(starts)]
    return blocks, "\n".join(lines[starts[-1] :])


def open_screen(*, markdown: bool) -> Screen:
    """The screen that suits stdout."""
    terminal = sys.stdout.isatty()
    if terminal and markdown:
        return MarkdownScreen(Console())
    return PlainScreen(sys.stdout, reasoning=terminal)
