"""The conversation loop: turns input into messages or commands, and shows answers."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from engine.errors import EngineError
from engine.units import format_bytes
from server.terminal.backend import AnswerFailed, Backend
from server.terminal.commands import Command, UnknownCommand, help_text, parse
from server.terminal.screen import Screen, harmless
from server.terminal.transcript import Transcript, cache_path, transcript_path


class Chat:
    """One conversation at a time with `backend`. Notes and errors go to stderr, answers to `screen`."""

    def __init__(self, backend: Backend, screen: Screen, system: str | None = None) -> None:
        self.backend, self._screen = backend, screen
        self.conversation = Transcript(system)
        self._warned: set[str] = set()

    def run(self, read: Callable[[], str]) -> int:
        """Run until `read` raises EOFError or the user enters /exit. Returns the exit status."""
        self._say(f"{self.backend.name}: /help lists the commands, Ctrl-D exits")
        while True:
            try:
                line = read()
            except EOFError:
                return 0
            except KeyboardInterrupt:
                self._say("Ctrl-D or /exit exits")
                continue
            try:
                entered = parse(line)
                if isinstance(entered, Command):
                    if entered.name == "/exit":
                        return 0
                    self._run_command(entered)
                elif entered is not None:
                    self.ask(entered)
            except (UnknownCommand, AnswerFailed, EngineError) as error:
                self._say(str(error))
            except KeyboardInterrupt:
                self._say("interrupted")

    def ask(self, text: str) -> bool:
        """Send a message and show the answer. False: Ctrl-C stopped it. Raises AnswerFailed.

        The received part of a stopped answer stays in the conversation. A message without any answer does
        not.
        """
        messages = [*self.conversation.messages(), {"role": "user", "content": text}]
        content: list[str] = []
        notes: list[str] = []
        stopped = False
        self._screen.begin()
        try:
            for piece in self.backend.answer(messages):
                content.append(piece.content)
                if piece.warning and piece.warning not in self._warned:
                    self._warned.add(piece.warning)
                    notes.append(piece.warning)
                if piece.note:
                    notes.append(piece.note)
                self._screen.write(piece)
        except KeyboardInterrupt:
            stopped = True
        finally:
            self._screen.end()
            answer = "".join(content)
            if answer:
                self.conversation.add("user", text)
                self.conversation.add("assistant", answer)
        if stopped:
            notes.append("stopped" if answer else "stopped; the message was discarded")
        elif not answer:
            notes.append("the model gave no answer; the message was discarded")
        for note in notes:
            self._say(note)
        return not stopped

    def load(self, text: str) -> None:
        """Continue a saved conversation. Raises ConfigError."""
        path = transcript_path(text)
        self.conversation = Transcript.load(path)
        n = len(self.conversation.turns)
        cache = cache_path(path)
        if cache.is_file():
            try:
                self.backend.load_cache(cache)
            except EngineError as error:
                self._say(f"the conversation will be recomputed: {error}")
        self._say(
            f"loaded {path}: {n} messages" + (", with a system prompt" if self.conversation.system else "")
        )

    def _run_command(self, command: Command) -> None:
        name, argument = command
        if name == "/help":
            self._say(help_text())
        elif name == "/system":
            self._set_system(argument)
        elif name == "/clear":
            self.conversation = Transcript(self.conversation.system)
            self._say("new conversation")
        elif not argument:
            self._say(f"{name} requires a file name: {name} talk")
        elif name == "/save":
            self._save(argument)
        else:
            self.load(argument)

    def _set_system(self, text: str) -> None:
        if text:
            self.conversation.system = None if text == "-" else text
        system = self.conversation.system
        self._say("no system prompt" if system is None else f"system prompt: {system}")

    def _save(self, text: str) -> None:
        path = transcript_path(text)
        self.conversation.save(path, self.backend.name)
        size = self.backend.save_cache(cache_path(path))
        cache = f", KV cache in {cache_path(path)} ({format_bytes(size)})" if size else ""
        self._say(f"saved {len(self.conversation.turns)} messages in {path}{cache}")

    @staticmethod
    def _say(text: str) -> None:
        sys.stdout.flush()
        dim, plain = (
            ("\x1b[2m", "\x1b[0m") if sys.stderr.isatty() and "NO_COLOR" not in os.environ else ("", "")
        )
        sys.stderr.write(f"{dim}{harmless(text)}{plain}\n")
        sys.stderr.flush()
