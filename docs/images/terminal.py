"""Draw terminal.svg beside this file: what a terminal shows after these commands, run for real.

`pip install pexpect pyte rich`, then `python docs/images/terminal.py` with `ggserve` on the PATH. The default
model is downloaded if GGSERVE_CACHE does not hold it.
"""

from __future__ import annotations

import os
import re
import time
from io import StringIO
from pathlib import Path
from typing import Any

import pexpect
import pyte
from rich.console import Console
from rich.text import Text

COLUMNS, ROWS = 100, 60
SHELL, CHAT = "$ ", ">>> "
LINES = (  # what is typed, and the prompt that follows
    ("ggserve pull smollm2-135m-instruct", SHELL),
    ("ggserve list", SHELL),
    ("ggserve chat --temperature 0", CHAT),
    ("/system Be brief.", CHAT),
    ("Explain in two sentences what a web server does.", CHAT),
    ("Write a Python function that returns the larger of two numbers. Show only the code.", CHAT),
    ("/save talk", CHAT),
    ("/exit", SHELL),
)
# rich's drawing of a terminal, without the fonts that it would load from another host.
SVG = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font: {char_height}px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  white-space: pre; line-height: {line_height}px }}
.{unique_id}-title {{ font-family: sans-serif; font-size: 18px; font-weight: bold }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


class Screen(pyte.Screen):
    """A terminal that shows faint text, which pyte ignores, as grey."""

    def select_graphic_rendition(self, *attributes: int, **options: Any) -> None:
        super().select_graphic_rendition(*(90 if a == 2 else a for a in attributes), **options)


def record() -> Screen:
    """The screen after all of LINES."""
    screen = Screen(COLUMNS, ROWS)
    stream = pyte.Stream(screen)
    shell = pexpect.spawn(
        "bash --norc --noprofile", dimensions=(ROWS, COLUMNS), encoding="utf-8", env=environment()
    )
    screen.write_process_input = shell.send  # answers to questions, such as where the cursor is

    def until(prompt: str) -> None:
        end = time.monotonic() + 300
        while screen.display[screen.cursor.y][: screen.cursor.x] != prompt:
            if time.monotonic() > end:
                raise SystemExit("\n".join(screen.display))
            try:
                stream.feed(shell.read_nonblocking(65536, timeout=0.3))
            except pexpect.TIMEOUT:
                continue

    until(SHELL)
    for line, prompt in LINES:
        shell.send(line + "\r")
        time.sleep(0.5)  # until the line is no longer the prompt that was awaited before
        stream.feed(shell.read_nonblocking(65536, timeout=5))
        until(prompt)
    shell.close(force=True)
    return screen


def environment() -> dict[str, str]:
    return {**os.environ, "PS1": SHELL, "TERM": "xterm-256color", "PYTHONUNBUFFERED": "1"}


def colour(name: str) -> str | None:
    """rich's name of a colour of pyte's."""
    if re.fullmatch("[0-9a-f]{6}", name):
        return f"#{name}"
    name = re.sub("^bright", "bright_", name).replace("brown", "yellow")
    return None if name == "default" else name


def text(screen: Screen, row: int) -> Text:
    line = Text()
    for column in range(COLUMNS):
        char = screen.buffer[row][column]
        names = {"bold": char.bold, "italic": char.italics, "underline": char.underscore}
        style = [name for name, is_set in (names | {"reverse": char.reverse}).items() if is_set]
        if foreground := colour(char.fg):
            style.append(foreground)
        if background := colour(char.bg):
            style.append(f"on {background}")
        line.append(char.data, " ".join(style))
    line.rstrip()
    return line


def main() -> None:
    screen = record()
    console = Console(record=True, width=COLUMNS, file=StringIO())
    last = max(row for row, line in enumerate(screen.display) if line.strip(" $"))
    for row in range(last + 1):
        console.print(text(screen, row), no_wrap=True)
    picture = Path(__file__).with_suffix(".svg")
    console.save_svg(str(picture), title="ggserve", code_format=SVG, unique_id="t")
    print("\n".join(line.rstrip() for line in screen.display[: last + 1]))


if __name__ == "__main__":
    main()
