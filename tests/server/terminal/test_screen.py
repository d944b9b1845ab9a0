"""How answers look: whole Markdown whatever the pieces, and nothing that could act on the terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from server.terminal.backend import Piece
from server.terminal.screen import MarkdownScreen, PlainScreen, harmless, open_screen, split_blocks

MARKDOWN = """\
# A title

A paragraph with **bold** text and a [link](https://example.org/x).

1. one

2. two

   still two

```python
def f():

    return 1
```

| a | b |
|---|---|
| 1 | 2 |
"""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(text: str, step: int, *, height: int = 24) -> str:
    """What a terminal without cursor movement would hold at the end."""
    file = io.StringIO()
    console = Console(file=file, width=60, height=height, force_terminal=False, color_system=None)
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 1.0  # each piece is drawn
        return now

    screen = MarkdownScreen(console, clock)
    screen.begin()
    for start in range(0, len(text), step):
        screen.write(Piece(text[start : start + step]))
    screen.end()
    return file.getvalue()


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_markdown_in_any_pieces_is_shown_the_same(step: int) -> None:
    text = shown(MARKDOWN, step)
    assert text == shown(MARKDOWN, 10_000)
    words = text.split()
    for word in ("title", "bold", "two", "return", "https://example.org/x"):
        assert sum(word in candidate for candidate in words) == (3 if word == "two" else 1) - (word == "two")
    assert "**" not in text
    assert "```" not in text
    assert "|---" not in text


def test_block_is_complete_once_the_next_begins() -> None:
    assert split_blocks("") == ([], "")
    assert split_blocks("one") == ([], "one")
    assert split_blocks("1. a\n\n2") == ([], "1. a\n\n2")
    assert split_blocks("one\n\ntwo\n") == (["one\n"], "two\n")
    assert split_blocks("```\na\n\nb") == ([], "```\na\n\nb")
    assert split_blocks("- a\n\n- b") == ([], "- a\n\n- b")
    assert split_blocks("- a\n\n- b\n\nc\nd") == (["- a\n\n- b\n"], "c\nd")
    blocks, rest = split_blocks(MARKDOWN)
    assert len(blocks) == 4
    assert "".join(f"{block}\n" for block in blocks) + rest == MARKDOWN


def test_growing_block_stays_within_the_height_of_the_terminal() -> None:
    file = io.StringIO()
    console = Console(
        file=file, width=40, height=10, force_terminal=True, _environ={"TERM": "xterm-256color"}
    )
    screen = MarkdownScreen(console, iter(range(1000)).__next__)
    screen.begin()
    for i in range(30):
        screen.write(Piece(f"- item {i}\n"))
    before_end = file.getvalue()
    screen.end()
    assert "item 29" in file.getvalue()[len(before_end) :]
    assert "item 0 " in file.getvalue()[len(before_end) :]
    counts = [frame.count("item") for frame in before_end.split("\x1b[2K\x1b[1A")]
    assert 1 < max(counts) <= 8


def test_reasoning_comes_before_the_answer() -> None:
    file = io.StringIO()
    screen = MarkdownScreen(Console(file=file, width=60, color_system=None), lambda: 0.0)
    screen.begin()
    for piece in (Piece(reasoning="Let me "), Piece(reasoning="think."), Piece("Yes"), Piece(".")):
        screen.write(piece)
    screen.end()
    assert [line.strip() for line in file.getvalue().splitlines()] == ["Let me think.", "", "Yes.", ""]


def test_control_characters_never_reach_a_terminal() -> None:
    evil = "a\x1b]0;title\x07b\x9b2Jc\rd\te\nf"
    assert harmless(evil) == "a\ufffd]0;title\ufffdb\ufffd2Jc\ufffdd\te\nf"
    assert "\x1b]0;" not in shown(evil, 1)
    terminal = Terminal()
    screen = PlainScreen(terminal, reasoning=True)
    screen.begin()
    screen.write(Piece(evil, reasoning="\x1b"))
    screen.end()
    assert "\x1b" not in terminal.getvalue()


def test_pipe_gets_the_content_unchanged() -> None:
    pipe = io.StringIO()
    screen = PlainScreen(pipe, reasoning=False)
    screen.begin()
    for piece in (Piece(reasoning="Hm"), Piece("**a**"), Piece("\x1b")):
        screen.write(piece)
    screen.end()
    assert pipe.getvalue() == "**a**\x1b\n"


def test_plain_text_on_a_terminal_separates_reasoning() -> None:
    terminal = Terminal()
    screen = PlainScreen(terminal, reasoning=True)
    for _ in range(2):
        screen.begin()
        for piece in (Piece(reasoning="Hm"), Piece(reasoning="m"), Piece("Yes"), Piece(".")):
            screen.write(piece)
        screen.end()
    assert terminal.getvalue() == "(reasoning) Hmm\n\nYes.\n" * 2


def test_open_screen_fits_stdout_and_the_markdown_option(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(open_screen(markdown=True), PlainScreen)
    monkeypatch.setattr("sys.stdout", Terminal())
    assert isinstance(open_screen(markdown=True), MarkdownScreen)
    assert isinstance(open_screen(markdown=False), PlainScreen)
