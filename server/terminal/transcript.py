"""The messages of a conversation, in memory and on disk.

Only the messages are essential; the KV cache beside them just saves recomputing them. So the two files need
not match, and the messages can be read, edited, and loaded with another model.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

from engine.errors import ConfigError, StorageError
from server.terminal.backend import Message

MAX_BYTES = 64 << 20


class SavedMessage(msgspec.Struct, forbid_unknown_fields=True):
    role: Literal["system", "user", "assistant"]
    content: str


class SavedTranscript(msgspec.Struct, forbid_unknown_fields=True):
    """The file's layout. model: its name when it was saved, for information only."""

    format: Literal["ggserve-chat"]
    version: Literal[1]
    model: str
    messages: list[SavedMessage]


class Transcript:
    """system: the system prompt, if there is one. turns: messages of user and assistant, alternating."""

    def __init__(self, system: str | None = None) -> None:
        self.system = system
        self.turns: list[Message] = []

    def messages(self) -> list[Message]:
        """All messages, in OpenAI's form."""
        first = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*first, *self.turns]

    def add(self, role: str, content: str) -> None:
        self.turns.append({"role": role, "content": content})

    def save(self, path: Path, model: str) -> None:
        """Write it to `path`, which is replaced atomically. Raises StorageError."""
        messages = [SavedMessage(message["role"], message["content"]) for message in self.messages()]
        saved = SavedTranscript("ggserve-chat", 1, model, messages)
        data = msgspec.json.format(msgspec.json.encode(saved), indent=1) + b"\n"
        part = None
        try:
            descriptor, part = tempfile.mkstemp(".part", ".", path.parent)
            with open(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            if part is not None:
                with suppress(OSError):
                    os.unlink(part)
            reason = getattr(error, "strerror", None) or error
            raise StorageError(f"{path}: the conversation cannot be saved: {reason}") from error

    @classmethod
    def load(cls, path: Path) -> Transcript:
        """Read what `save` wrote. Raises ConfigError, which says what is wrong with the file."""
        try:
            if not path.is_file():  # opening a pipe could block
                reason = "is not a regular file" if path.exists() else "there is no such file"
                raise ConfigError(f"{path}: {reason}")
            with path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except (OSError, ValueError) as error:
            if isinstance(error, ConfigError):
                raise
            reason = getattr(error, "strerror", None) or str(error)
            raise ConfigError(f"{path}: the conversation cannot be read: {reason}") from error
        if len(data) > MAX_BYTES:
            raise ConfigError(f"{path}: a saved conversation has at most {MAX_BYTES >> 20} MiB")
        try:
            saved = msgspec.json.decode(data, type=SavedTranscript)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: is not a saved conversation ({error})") from error
        return cls._checked(path, saved.messages)

    @classmethod
    def _checked(cls, path: Path, messages: list[SavedMessage]) -> Transcript:
        conversation = cls()
        if messages and messages[0].role == "system":
            conversation.system = messages.pop(0).content
        for i, message in enumerate(messages):
            if message.role != ("user", "assistant")[i % 2]:
                raise ConfigError(
                    f"{path}: message {i + 1} has the role {message.role}; user and assistant "
                    "must take turns, after at most one system message"
                )
            conversation.add(message.role, message.content)
        if len(messages) % 2:
            raise ConfigError(f"{path}: the last message has no answer; remove it, or add one")
        return conversation


def transcript_path(text: str) -> Path:
    """The file that /save and /load mean; .json is added if there is no suffix. Raises ConfigError."""
    try:
        path = Path(text).expanduser()
    except RuntimeError:  # ~USER of nobody
        raise ConfigError(f"{text}: there is no such user") from None
    if path.name in ("", ".."):
        raise ConfigError(f"{text}: is a folder; give the name of a file")
    return path if path.suffix else path.with_name(path.name + ".json")


def cache_path(path: Path) -> Path:
    """The file of the KV cache beside a conversation's file."""
    return path.with_suffix(".session") if path.suffix != ".session" else path.with_name(path.name + ".cache")
