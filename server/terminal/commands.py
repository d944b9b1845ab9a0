"""Lines that begin with a slash: commands to the program rather than messages to the model."""

from __future__ import annotations

import difflib
import re
from typing import NamedTuple

COMMANDS = {
    "/help": "list the commands and keys",
    "/system": "TEXT: set the system prompt; without TEXT: show it; `/system -`: remove it",
    "/save": "FILE: save the conversation (FILE.json) and, for a local model, its KV cache (FILE.session)",
    "/load": "FILE: continue a saved conversation",
    "/clear": "start a new conversation; the system prompt is kept",
    "/exit": "exit",
}
ALIASES = {"/?": "/help", "/bye": "/exit", "/quit": "/exit", "/q": "/exit", "/new": "/clear"}
KEYS = {
    "Enter": 'send; inside """ … """ a new line',
    "Alt-Enter, Ctrl-J": "new line",
    "Ctrl-C": "stop the answer, or discard the line",
    "Ctrl-D": "exit",
}
_COMMAND = re.compile(r"(/[a-z?]+)(?:\s+(.*))?", re.DOTALL | re.IGNORECASE)
_QUOTE = '"""'


class Command(NamedTuple):
    """A command of COMMANDS, and the rest of its line."""

    name: str
    argument: str


class UnknownCommand(Exception):
    """The text says which command may have been meant."""


def parse(line: str) -> Command | str | None:
    """A command, or the text of a message; None for an empty line. Raises UnknownCommand.

    A path such as /etc/hosts is a message, and so is any line that begins with a space.
    """
    match = _COMMAND.fullmatch(line.rstrip())
    if match is None:
        return unquoted(line) or None
    word = match[1].lower()
    name = ALIASES.get(word, word)
    if name not in COMMANDS:
        near = difflib.get_close_matches(word, [*COMMANDS, *ALIASES], 1)
        hint = f"did you mean {near[0]}?" if near else "/help lists them"
        raise UnknownCommand(
            f"unknown command {match[1][:50]}; {hint} (to send it as a message, begin with a space)"
        )
    return Command(name, unquoted(match[2] or ""))


def unquoted(text: str) -> str:
    """The text without surrounding white space, and without the triple quotes of a multi-line text."""
    text = text.strip()
    if text.startswith(_QUOTE):
        text = text.removeprefix(_QUOTE).removesuffix(_QUOTE).strip("\r\n")
    return text


def is_unfinished(text: str) -> bool:
    """Whether triple quotes have begun a multi-line text but not ended it."""
    match = _COMMAND.fullmatch(text)
    text = ((match[2] or "") if match else text).strip()
    return text.startswith(_QUOTE) and not (text.endswith(_QUOTE) and len(text) >= 2 * len(_QUOTE))


def help_text() -> str:
    """The output of /help."""
    rows = {**COMMANDS, "": "", **KEYS}
    width = max(map(len, rows)) + 2
    return "\n".join(f"{name:<{width}}{text}".rstrip() for name, text in rows.items())
