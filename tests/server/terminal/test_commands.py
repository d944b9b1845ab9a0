"""Lines are commands or messages; nothing that begins with a slash goes to the model by mistake."""

from __future__ import annotations

import pytest

from server.terminal.commands import COMMANDS, Command, UnknownCommand, help_text, is_unfinished, parse


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", None),
        ("  \n ", None),
        ('""""""', None),
        ("Hello ", "Hello"),
        ("/help", Command("/help", "")),
        ("/HELP  ", Command("/help", "")),
        ("/?", Command("/help", "")),
        ("/bye", Command("/exit", "")),
        ("/save  a b.json ", Command("/save", "a b.json")),
        ("/system Be\nbrief.", Command("/system", "Be\nbrief.")),
        ('/system """Be\nbrief."""', Command("/system", "Be\nbrief.")),
        ('"""one\n  two\n"""', "one\n  two"),
        ("/etc/hosts is what?", "/etc/hosts is what?"),
        ("/3 of it", "/3 of it"),
        (" /save it", "/save it"),
        ("a /help", "a /help"),
    ],
)
def test_line_is_a_command_a_message_or_nothing(line: str, expected: Command | str | None) -> None:
    assert parse(line) == expected


@pytest.mark.parametrize(
    ("line", "hint"),
    [("/hlep", "did you mean /help?"), ("/exi now", "did you mean /exit?"), ("/xyzzy", "/help")],
)
def test_an_unknown_command_names_the_nearest(line: str, hint: str) -> None:
    with pytest.raises(UnknownCommand, match=line.split()[0]) as error:
        parse(line)
    assert hint in str(error.value)


@pytest.mark.parametrize(
    ("text", "unfinished"),
    [
        ("", False),
        ("Hello", False),
        ('"""', True),
        ('"""Hello', True),
        ('"""Hello"', True),
        ('"""Hello"""', False),
        ('""""""', False),
        ('/system """Be', True),
        ('/system """Be"""', False),
        ('say """', False),
    ],
)
def test_a_quoted_text_is_unfinished_until_its_quotes_are_closed(text: str, unfinished: bool) -> None:
    assert is_unfinished(text) is unfinished


def test_help_names_every_command() -> None:
    lines = help_text().splitlines()
    assert [line.split()[0] for line in lines[: len(COMMANDS)]] == list(COMMANDS)
