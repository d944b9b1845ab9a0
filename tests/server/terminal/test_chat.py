"""The conversation with a backend that says what the test wants."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pytest

from engine.errors import ModelError
from server.terminal.backend import AnswerFailed, Message, Piece
from server.terminal.chat import Chat


class ScriptedBackend:
    """Answers with the pieces of the next script; an exception in it is raised."""

    name = "scripted"

    def __init__(self, *scripts: Sequence[Piece | BaseException]) -> None:
        self.scripts = list(scripts)
        self.received: list[list[Message]] = []
        self.restored: list[Path] = []
        self.refuses_cache = False

    def answer(self, messages: Sequence[Message]) -> Iterator[Piece]:
        self.received.append(list(messages))
        for piece in self.scripts.pop(0):
            if isinstance(piece, BaseException):
                raise piece
            yield piece

    def save_cache(self, path: Path) -> int:
        path.write_bytes(b"x" * 2048)
        return 2048

    def load_cache(self, path: Path) -> None:
        if self.refuses_cache:
            raise ModelError("was saved with another model file")
        self.restored.append(path)

    def close(self) -> None:
        pass


class RecordingScreen:
    def __init__(self) -> None:
        self.text = ""

    def begin(self) -> None:
        self.text += "<"

    def write(self, piece: Piece) -> None:
        self.text += piece.content

    def end(self) -> None:
        self.text += ">"


def lines(*texts: str | BaseException) -> Callable[[], str]:
    """Reads these, and then the end of input."""
    left: Iterable[str | BaseException] = iter([*texts, EOFError()])

    def read() -> str:
        text = next(left)  # type: ignore[call-overload]
        if isinstance(text, BaseException):
            raise text
        return str(text)

    return read


def hello() -> list[Piece | BaseException]:
    return [Piece("Hel"), Piece("lo", warning="a warning")]


def test_answers_become_part_of_the_conversation(capsys: pytest.CaptureFixture[str]) -> None:
    backend, screen = ScriptedBackend(hello(), hello()), RecordingScreen()
    chat = Chat(backend, screen, "Be brief.")
    assert chat.run(lines("Hi", "", "Again")) == 0
    assert screen.text == "<Hello><Hello>"
    assert backend.received[1] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Again"},
    ]
    assert capsys.readouterr().err.count("a warning") == 1


def test_ctrl_c_keeps_the_partial_answer_and_continues(capsys: pytest.CaptureFixture[str]) -> None:
    backend, screen = ScriptedBackend([Piece("Hel"), KeyboardInterrupt()], hello()), RecordingScreen()
    chat = Chat(backend, screen)
    assert chat.run(lines("Hi", KeyboardInterrupt(), "Again")) == 0
    assert screen.text == "<Hel><Hello>"
    assert [message["content"] for message in backend.received[1]] == ["Hi", "Hel", "Again"]
    errors = capsys.readouterr().err
    assert "stopped" in errors
    assert "Ctrl-D or /exit" in errors


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ([KeyboardInterrupt()], "stopped; the message was discarded"),
        ([AnswerFailed("the context is full")], "the context is full"),
        ([Piece(reasoning="Hm")], "gave no answer"),
        ([], "gave no answer"),
    ],
    ids=["interrupted", "failed", "reasoning only", "empty"],
)
def test_message_without_an_answer_is_removed(
    script: list[Piece | BaseException], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    backend, screen = ScriptedBackend(script, hello()), RecordingScreen()
    chat = Chat(backend, screen)
    assert chat.run(lines("Hi", "Again")) == 0
    assert screen.text == "<><Hello>"
    assert [message["content"] for message in backend.received[1]] == ["Again"]
    assert message in capsys.readouterr().err


def test_interrupted_answer_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    chat = Chat(ScriptedBackend([Piece("Hel"), AnswerFailed("connection lost")]), RecordingScreen())
    with pytest.raises(AnswerFailed):
        chat.ask("Hi")
    assert [message["content"] for message in chat.conversation.turns] == ["Hi", "Hel"]


def test_system_sets_the_prompt_and_clear_starts_anew(capsys: pytest.CaptureFixture[str]) -> None:
    backend = ScriptedBackend(hello(), hello(), hello())
    chat = Chat(backend, RecordingScreen())
    chat.run(lines("/system", "/system Be brief.", "Hi", "/clear", "Hi", "/system -", "/exit", "unread"))
    roles = [[message["role"] for message in messages] for messages in backend.received]
    assert roles == [["system", "user"], ["system", "user"]]
    assert chat.conversation.system is None
    errors = capsys.readouterr().err
    assert errors.count("no system prompt") == 2
    assert "new conversation" in errors


def test_saved_conversation_is_loaded_with_its_cache_if_usable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backend, path = ScriptedBackend(hello(), hello()), tmp_path / "talk"
    Chat(backend, RecordingScreen(), "Be brief.").run(lines("Hi", f"/save {path}"))
    assert f"saved 2 messages in {path}.json, KV cache in {path}.session (2.0 KiB)" in capsys.readouterr().err
    chat = Chat(backend, RecordingScreen())
    chat.run(lines(f"/load {path}", "Again"))
    assert f"loaded {path}.json: 2 messages, with a system prompt" in capsys.readouterr().err
    assert backend.restored == [path.with_suffix(".session")]
    assert [message["content"] for message in backend.received[1]] == ["Be brief.", "Hi", "Hello", "Again"]
    backend.refuses_cache = True
    chat.run(lines(f"/load {path}"))
    errors = capsys.readouterr().err
    assert "will be recomputed: was saved with another model file" in errors
    assert "loaded" in errors


def test_mistakes_are_reported_in_one_line_and_change_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chat = Chat(ScriptedBackend(hello()), RecordingScreen())
    absent = tmp_path / "absent" / "talk"
    assert chat.run(lines("Hi", "/load", "/save", f"/load {absent}", f"/save {absent}", "/exti")) == 0
    assert len(chat.conversation.turns) == 2
    errors = capsys.readouterr().err.splitlines()[2:]  # after the greeting and the warning
    assert [line.split(" ")[0] for line in errors] == [
        "/load", "/save", f"{absent}.json:", f"{absent}.json:", "unknown",
    ]  # fmt: skip


def test_control_characters_in_loaded_texts_are_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    chat = Chat(ScriptedBackend([AnswerFailed("no\x1b[2J")]), RecordingScreen())
    chat.run(lines("Hi"))
    assert "no\ufffd[2J" in capsys.readouterr().err
