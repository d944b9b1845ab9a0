"""`ggserve chat` and `infer` as a user meets them: on a terminal, in pipes, with a model, with a server."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from support.api.chat import answering, app
from support.fakes.engine import serving
from support.server_process import COMMAND, ROOT, ServerProcess, ggserve
from support.waiting import wait_until

pytestmark = pytest.mark.e2e

MODEL = ROOT / "models" / "stories.gguf"
OPTIONS = ("-m", str(MODEL), "--threads", "1", "--use-gpu", "false", "--temperature", "0")
ENDLESS = ("--ignore-eos", "--context-size", "100000")
PROMPT, TIMEOUT_S = ">>> ", 60
_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


class TerminalChat:
    """`ggserve COMMAND` on a pseudo-terminal."""

    def __init__(self, folder: Path, *arguments: str, command: str = "chat") -> None:
        environment = {**os.environ, "GGSERVE_CACHE": str(folder / "cache"), "TERM": "xterm-256color"}
        environment.pop("NO_COLOR", None)
        self.child = pexpect.spawn(
            COMMAND[0],
            [*COMMAND[1:], command, *arguments],
            cwd=str(ROOT),
            env=environment,
            encoding="utf-8",
            timeout=TIMEOUT_S,
            dimensions=(24, 80),
        )

    def expect(self, pattern: str) -> str:
        """Wait for a pattern; the text up to its end, without control sequences."""
        self.child.expect(pattern)
        return _SEQUENCE.sub("", self.child.before + self.child.after)

    def type(self, line: str, pattern: str) -> str:
        """Type a line after the prompt; the text up to the pattern."""
        self.expect(PROMPT)
        self.child.send(line + "\r")
        return self.expect(pattern)

    def end(self) -> int:
        """The exit status, once it has ended."""
        self.child.expect(pexpect.EOF)
        self.child.close()
        return self.child.exitstatus

    def __enter__(self) -> TerminalChat:
        return self

    def __exit__(self, *error: object) -> None:
        self.child.close(force=True)


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess("-m", str(MODEL), "--threads", "1", "--use-gpu", "false", "--api-key", "k") as server:
        yield server


def test_a_conversation_is_saved_and_continues_in_another_process(tmp_path: Path) -> None:
    talk = tmp_path / "talk"
    with TerminalChat(tmp_path, *OPTIONS, "-n", "40") as chat:
        story = chat.type("Tell me a story about a dog.", "--max-tokens 40")
        assert "Once upon a time" in story
        assert "/system" in chat.type("/help", "Ctrl-D")
        chat.type('"""Tell me\r  more."""', "--max-tokens 40")
        chat.type(f"/save {talk}", r"saved 4 messages.*KiB")
        chat.type("/exit", "")
        assert chat.end() == 0
    saved = json.loads(talk.with_suffix(".json").read_text())
    assert [message["role"] for message in saved["messages"]] == ["user", "assistant"] * 2
    assert saved["messages"][2]["content"] == "Tell me\n  more."
    assert talk.with_suffix(".session").stat().st_size > 1000
    with TerminalChat(tmp_path, *OPTIONS, "-n", "40", "--load", str(talk)) as chat:
        chat.expect("loaded .* 4 messages")
        chat.type("\x1b[A" * 2, "saved 4 messages")  # the line before /exit in the history
        chat.expect(PROMPT)
        chat.child.sendeof()
        assert chat.end() == 0


def test_ctrl_c_stops_the_answer_and_not_the_program(tmp_path: Path) -> None:
    with TerminalChat(tmp_path, *OPTIONS, *ENDLESS) as chat:
        # Not the beginning: on a fast machine it may have left the screen before the first drawing.
        chat.type("Tell me a story about a dog.", " the ")
        chat.child.sendintr()
        chat.expect("stopped")
        chat.expect(PROMPT)
        chat.child.sendintr()
        chat.expect("Ctrl-D or /exit exits")
        chat.type("/clear", "new conversation")
        chat.expect(PROMPT)
        chat.child.sendeof()
        assert chat.end() == 0


def test_chat_with_a_server_sends_the_key(server: ServerProcess, tmp_path: Path) -> None:
    arguments = ("--url", server.url, "--temperature", "0", "-n", "40")
    with TerminalChat(tmp_path, *arguments, "--api-key", "k") as chat:
        assert "stories" in chat.expect("/help")
        assert "Once upon a time" in chat.type("Tell me a story about a dog.", "token limit")
        chat.type("/nonsense", "unknown command /nonsense")
        chat.expect(PROMPT)
        chat.child.sendeof()
        assert chat.end() == 0
    done = ggserve("chat", *arguments, input="Hi")
    assert (done.returncode, done.stdout) == (2, "")
    assert "401" in done.stderr
    assert "GGSERVE_API_KEY" in done.stderr


def test_ctrl_c_stops_the_answer_of_a_server(tmp_path: Path) -> None:
    engine = answering("word " * 8000, delay_s=0.02)
    with serving(app(engine)) as url, TerminalChat(tmp_path, "--url", url) as chat:
        chat.type("Tell me a story about a dog.", "word word")
        chat.child.sendintr()
        chat.expect("stopped")
        chat.expect(PROMPT)
        wait_until(lambda: engine.left)
        chat.child.sendeof()
        assert chat.end() == 0


def test_chat_on_a_pipe_prints_one_answer_only(server: ServerProcess) -> None:
    question = "Tell me a story about a dog."
    done = ggserve("chat", *OPTIONS, "-n", "30", input=question + "\n")
    assert done.returncode == 0
    assert done.stdout.startswith("Once upon a time")
    assert done.stderr == "the answer ends here because of --max-tokens 30\n"
    remote = ggserve(
        "chat", "--url", server.url, "--api-key", "k", "--temperature", "0", "-n", "30", input=question
    )
    assert remote.stdout == done.stdout
    chat = ggserve("infer", *OPTIONS, "-n", "30", "--chat", "-p", question)
    assert (chat.returncode, chat.stdout) == (0, done.stdout)


def test_mistakes_are_reported_in_one_line() -> None:
    for arguments, status, message in (
        (("chat", *OPTIONS), 2, "ggserve: stdin is empty"),
        (
            ("chat", "--url", "127.0.0.1:9"),
            2,
            "ggserve: --url 127.0.0.1:9: cannot reach http://127.0.0.1:9/v1: ",
        ),
        (
            ("chat", *OPTIONS, "--load", "/absent/talk"),
            2,
            "ggserve: /absent/talk.json: there is no such file",
        ),
        (("infer", *OPTIONS), 2, "ggserve infer: a text is required: -p TEXT, or -p - to read it from stdin"),
        (("infer", *OPTIONS, "--chat", "--stats", "-p", "x"), 2, "ggserve infer: --stats cannot be combined"),
        (("infer", *OPTIONS, "--load-session", "/absent/x"), 2, "ggserve: /absent/x: the session cannot be"),
    ):
        text = "" if arguments == ("chat", *OPTIONS) else "Hi"
        done = ggserve(*arguments, input=text)
        (line,) = done.stderr.splitlines()
        assert (done.returncode, done.stdout) == (status, "")
        assert line.startswith(message)


def test_infer_without_a_prompt_chats_on_a_terminal(tmp_path: Path) -> None:
    with TerminalChat(tmp_path, *OPTIONS, "-n", "20", command="infer") as chat:
        assert "Once" in chat.type("Tell me a story about a dog.", "--max-tokens 20")
        chat.expect(PROMPT)
        chat.child.sendeof()
        assert chat.end() == 0


def test_infer_on_a_terminal_hints_at_chat(tmp_path: Path) -> None:
    with TerminalChat(tmp_path, *OPTIONS, "-n", "8", "-p", "Once upon a time", command="infer") as infer:
        infer.expect("hint: .*--chat")
        assert infer.end() == 0


def test_infer_session_continues_as_if_uninterrupted(tmp_path: Path) -> None:
    path = tmp_path / "tale"
    whole = ggserve("infer", *OPTIONS, "-p", "Once upon a time", "-n", "40").stdout.removesuffix("\n")
    first = ggserve("infer", *OPTIONS, "-p", "Once upon a time", "-n", "20", "--save-session", str(path))
    assert re.fullmatch(rf"saved \d+ tokens in {path} \(.* KiB\)\n", first.stderr)
    second = ggserve("infer", *OPTIONS, "-n", "20", "--load-session", str(path))
    assert (second.returncode, second.stderr) == (0, "")
    assert first.stdout.removesuffix("\n") + second.stdout.removesuffix("\n") == whole
    more = ggserve("infer", *OPTIONS, "-n", "5", "-p", " But then", "--load-session", str(path), "--stats")
    n_prompt = int(re.search(r"^prompt .* (\d+) tokens", more.stderr, re.M)[1])
    assert n_prompt < 6
    path.write_bytes(path.read_bytes()[:-1])
    broken = ggserve("infer", *OPTIONS, "--load-session", str(path))
    assert (broken.returncode, broken.stdout) == (1, "")
    assert "truncated" in broken.stderr


def test_ctrl_c_in_a_pipe_ends_with_130() -> None:
    process = subprocess.Popen(
        [*COMMAND, "chat", *OPTIONS, *ENDLESS],
        cwd=ROOT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdin.write("Tell me a story about a dog.")
    process.stdin.close()
    assert process.stdout.read(10)
    process.send_signal(signal.SIGINT)
    output, errors = process.stdout.read(), process.stderr.read()
    assert process.wait(60) == 130
    assert output.endswith("\n")
    assert "Traceback" not in errors
    process.stdout.close()
    process.stderr.close()
