"""Keys of the input line, on prompt_toolkit's own pipe input."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, InMemoryHistory
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from server.terminal import editor
from server.terminal.editor import Editor, open_history


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Type keys, and what was read."""
    monkeypatch.setattr(editor, "create_output", lambda **options: DummyOutput())

    def read(keys: str) -> str:
        with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
            pipe.send_text(keys)
            return Editor(tmp_path / "history").read()

    return read


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ("Hello\r", "Hello"),
        ("one\x1b\rtwo\r", "one\ntwo"),
        ("one\ntwo\r", "one\ntwo"),
        ('"""one\rtwo"""\r', '"""one\ntwo"""'),
        ("\x1b[200~pasted\rtext\x1b[201~\r", "pasted\ntext"),
        ("wrong\x15right\r", "right"),
    ],
    ids=["enter", "alt-enter", "ctrl-j", "quotes", "paste", "erase"],
)
def test_keys_edit_the_text(read, keys: str, text: str) -> None:
    assert read(keys) == text


def test_tab_completes_commands() -> None:
    document = Document("/s")
    completions = editor.command_completer().get_completions(
        document, CompleteEvent(completion_requested=True)
    )
    assert [completion.text for completion in completions] == ["/system", "/save"]


def test_ctrl_c_interrupts_and_ctrl_d_ends_the_input(read) -> None:
    with pytest.raises(KeyboardInterrupt):
        read("text\x03")
    with pytest.raises(EOFError):
        read("\x04")


def test_history_file_is_readable_only_by_its_owner(read, tmp_path: Path) -> None:
    read("first\r")
    assert read("\x1b[A\r") == "first"  # arrow up
    path = tmp_path / "history"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_history_that_cannot_be_written_stays_in_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert isinstance(open_history(tmp_path / "file" / "history"), InMemoryHistory)
    assert isinstance(open_history(tmp_path), InMemoryHistory)
    assert isinstance(open_history(tmp_path / "new" / "history"), FileHistory)
