"""Input on a terminal: editing, history, several lines. Built on prompt_toolkit."""

from __future__ import annotations

from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import create_output

from server.terminal.commands import COMMANDS, is_unfinished

PROMPT = ">>> "
HINT = "type a message, or /help"


def open_history(path: Path) -> History:
    """The history, in a file that only its owner can read, or in memory if there can be no file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        with path.open("ab"):
            return FileHistory(str(path))
    except OSError:
        return InMemoryHistory()


def key_bindings() -> KeyBindings:
    """Enter sends unless a quoted text is unfinished; Alt-Enter and Ctrl-J insert a new line."""
    bindings = KeyBindings()

    @bindings.add("enter")
    def _send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if is_unfinished(buffer.text):
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @bindings.add("escape", "enter")
    @bindings.add("c-j")
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return bindings


def command_completer() -> WordCompleter:
    """Completes commands while nothing else has been typed."""
    return WordCompleter(list(COMMANDS), sentence=True)


class Editor:
    """Reads messages. It draws on stderr if stdout is not the terminal."""

    def __init__(self, history: Path) -> None:
        self._session: PromptSession[str] = PromptSession(
            PROMPT,
            multiline=True,
            prompt_continuation="... ",
            history=open_history(history),
            key_bindings=key_bindings(),
            completer=command_completer(),
            complete_while_typing=False,
            enable_suspend=True,
            output=create_output(always_prefer_tty=True),
            placeholder=FormattedText([("fg:ansibrightblack", HINT)]),
        )

    def read(self) -> str:
        """One message. Raises EOFError on Ctrl-D in an empty line, KeyboardInterrupt on Ctrl-C."""
        return self._session.prompt()
