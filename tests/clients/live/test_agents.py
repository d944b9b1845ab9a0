"""Coding agents on the command line, each a whole turn: a shell command or an edit, and an answer.

They talk to the application with a scripted model, because a small one does not find its way through their
prompts. Those with prompts that fit are also asked on the real one.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.types import Request
from support.builders.vocabularies import models_dir
from support.client_environments import LIMIT_S, executable
from support.fakes.engine import FakeEngine, ids, make_app, serving

BIN = Path(__file__).parent / "node" / "node_modules" / ".bin"
TEMPLATE = models_dir() / "templates" / "Qwen-Qwen3-0.6B.jinja"
PRINT = "echo magic-$((6*7)) > out.txt; cat out.txt"
LONG = 8000  # agents also ask for titles, with short prompts


class Script:
    """Answers long prompts in turn: the call of a tool, then a text."""

    def __init__(self, tool: str, **arguments: object) -> None:
        call = json.dumps({"name": tool, "arguments": arguments})
        self.answers = [f"<tool_call>\n{call}\n</tool_call>", "It printed magic-42."]

    def __call__(self, request: Request) -> list[int]:
        if len(request.prompt) < LONG:
            return ids("A title")
        return ids(self.answers.pop(0))


@contextmanager
def agent_server(script: Callable[[Request], list[int]]) -> Iterator[str]:
    engine = FakeEngine(script, n_ctx=1 << 17, step=16)
    with serving(make_app(engine, chat_template=TEMPLATE, any_model=True)) as url:
        yield url


def start(folder: Path, *command: str | Path, **environment: str) -> str:
    """What a command prints that runs in `work` in a folder, with a home of its own."""
    home, work = folder / "home", folder / "work"
    for path in (home, work):
        path.mkdir(exist_ok=True)
    done = subprocess.run(
        command,
        cwd=work,
        env={**os.environ, "HOME": str(home), "PWD": str(work), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run(folder: Path, command: str, *arguments: str, **environment: str) -> str:
    """The same of a command out of npm, which must have run `PRINT`."""
    text = start(folder, BIN / command, *arguments, **environment)
    assert (folder / "work" / "out.txt").read_text() == "magic-42\n"
    return text


def test_claude_code_runs_a_command_and_answers(tmp_path: Path) -> None:
    with agent_server(Script("Bash", command=PRINT, description="Print")) as url:
        environment = {
            "ANTHROPIC_BASE_URL": url,
            "ANTHROPIC_API_KEY": "none",
            "ANTHROPIC_MODEL": "stories",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "IS_SANDBOX": "1",
        }
        text = run(tmp_path, "claude", "-p", "--dangerously-skip-permissions", "Run it", **environment)
    assert "magic-42" in text


def test_claude_code_recognizes_a_prompt_that_is_too_long(tmp_path: Path) -> None:
    with serving(make_app(FakeEngine(n_ctx=4096), chat_template=TEMPLATE, any_model=True)) as url:
        environment = {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "none", "ANTHROPIC_MODEL": "stories"}
        with pytest.raises(AssertionError, match=r"Prompt is too long .*limit 4095"):
            run(
                tmp_path,
                "claude",
                "-p",
                "Run it",
                CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1",
                **environment,
            )


def test_codex_runs_a_command_and_answers(tmp_path: Path) -> None:
    with agent_server(Script("exec_command", cmd=PRINT)) as url:
        provider = f'model_providers.ggserve={{name="ggserve",base_url="{url}/v1",wire_api="responses"}}'
        options = ["-c", provider, "-c", 'model_provider="ggserve"', "-c", 'model="stories"']
        text = run(
            tmp_path,
            "codex",
            "exec",
            *options,
            "--skip-git-repo-check",
            "-s",
            "danger-full-access",
            "Run it",
        )
    assert "magic-42" in text


def test_opencode_runs_a_command_and_answers(tmp_path: Path) -> None:
    with agent_server(Script("bash", command=PRINT, description="Print")) as url:
        provider = {
            "npm": "@ai-sdk/openai-compatible",
            "name": "ggserve",
            "options": {"baseURL": f"{url}/v1"},
            "models": {"stories": {"name": "stories"}},
        }
        model = "ggserve/stories"
        config = {"provider": {"ggserve": provider}, "model": model, "small_model": model}
        environment = {"OPENCODE_CONFIG_CONTENT": json.dumps(config), "OPENCODE_DISABLE_MODELS_FETCH": "1"}
        text = run(tmp_path, "opencode", "run", "-m", model, "Run it", **environment)
    assert "magic-42" in text


CLINE = (
    "cline",
    "--json",
    "-P",
    "openai-compatible",
    "-m",
    "smollm2",
    "--compaction",
    "off",
    "--retries",
    "1",
)


def start_cline(folder: Path, url: str, question: str) -> str:
    data = str(folder / "data")
    address = ("-p", "openai-compatible", "-k", "none", "-m", "smollm2", "-b", f"{url}/v1")
    start(folder, BIN / "cline", "auth", *address, "--data-dir", data)
    return start(folder, BIN / CLINE[0], *CLINE[1:], "--data-dir", data, question)


def test_cline_runs_a_command_and_answers(tmp_path: Path) -> None:
    with agent_server(Script("run_commands", commands=[PRINT])) as url:
        lines = start_cline(tmp_path, url, "Run it").splitlines()
    assert (tmp_path / "work" / "out.txt").read_text() == "magic-42\n"
    assert "magic-42" in json.loads(lines[-1])["text"]


def test_cline_answers_on_the_real_model(url: str, tmp_path: Path) -> None:
    end = json.loads(start_cline(tmp_path, url, "Say hello.").splitlines()[-1])
    assert end["finishReason"] == "completed"
    assert end["text"]


# --- Continue


def start_continue(folder: Path, url: str, provider: str, question: str) -> str:
    """Its command line, which sends the same requests with its provider `openai` and with `ollama`."""
    address = {"openai": f"{url}/v1", "ollama": url}[provider]
    model = {"name": "ggserve", "provider": provider, "model": "smollm2", "apiBase": address}
    config = folder / "config.yaml"
    config.write_text(json.dumps({"name": "ggserve", "version": "1.0.0", "schema": "v1", "models": [model]}))
    return start(folder, BIN / "cn", "-p", "--auto", "--config", config, question)


@pytest.mark.parametrize("provider", ["openai", "ollama"])
def test_continue_runs_a_command_and_answers(provider: str, tmp_path: Path) -> None:
    answers = Script("Bash", command=PRINT).answers
    with agent_server(lambda request: ids(answers.pop(0))) as url:
        text = start_continue(tmp_path, url, provider, "Run it")
    assert (tmp_path / "work" / "out.txt").read_text() == "magic-42\n"
    assert "magic-42" in text
    assert answers == []


def test_continue_answers_on_the_real_model(url: str, tmp_path: Path) -> None:
    assert start_continue(tmp_path, url, "openai", "Say hello.").strip()


# --- aider


def start_aider(folder: Path, url: str, *arguments: str) -> str:
    """On a repository with one file, `greet.py`."""
    work = folder / "work"
    work.mkdir()
    (work / "greet.py").write_text('def greet():\n    return "hello"\n')
    name = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    for command in (("init", "-q"), ("add", "."), (*name, "commit", "-qm", "first")):
        subprocess.run(["git", *command], cwd=work, check=True)
    options = ("--yes-always", "--no-pretty", "--no-check-update", "--analytics-disable", "--no-gitignore")
    names = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.com"}
    names |= {"GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@example.com"}
    return start(
        folder,
        executable("aider", "aider"),
        "--model",
        "openai/smollm2",
        "--no-show-model-warnings",
        *options,
        *arguments,
        "greet.py",
        OPENAI_API_BASE=f"{url}/v1",
        OPENAI_API_KEY="none",
        **names,
    )


EDITS = {
    "whole": "greet.py\n```python\n{new}```\n",
    "diff": "greet.py\n```python\n<<<<<<< SEARCH\n{old}=======\n{new}>>>>>>> REPLACE\n```\n",
    "udiff": "```diff\n--- greet.py\n+++ greet.py\n@@ ... @@\n def greet():\n-{oldline}+{newline}```\n",
}


@pytest.mark.parametrize("format", EDITS)
def test_aider_edits_a_file_and_commits(format: str, tmp_path: Path) -> None:
    old, new = ('    return "hello"\n', '    return "good morning"\n')
    lines = {"old": "def greet():\n" + old, "new": "def greet():\n" + new, "oldline": old, "newline": new}
    answers = [EDITS[format].format(**lines), "feat: greet in the morning"]
    with agent_server(lambda request: ids(answers.pop(0))) as url:
        start_aider(tmp_path, url, "--edit-format", format, "--message", "Greet in the morning.")
    assert (tmp_path / "work" / "greet.py").read_text() == "def greet():\n" + new
    log = subprocess.run(
        ["git", "log", "--format=%s"], cwd=tmp_path / "work", capture_output=True, text=True, check=True
    )
    assert log.stdout.splitlines() == ["feat: greet in the morning", "first"]
    assert answers == []


def test_aider_answers_on_the_real_model(url: str, tmp_path: Path) -> None:
    text = start_aider(tmp_path, url, "--chat-mode", "ask", "--message", "What does greet return?")
    # It says the one of a whole answer, the other of one that the limit of tokens has cut.
    [received] = re.findall(r"(?:Output tokens: ~|sent, )([\d.k]+)", text)
    assert received != "0"
