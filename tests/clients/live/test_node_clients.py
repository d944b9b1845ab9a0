"""Clients out of npm: Vercel's AI SDK, and agents on the command line, each a turn with a shell command.

The agents talk to the application with a scripted model, because a small one does not find its way through
prompts of 20,000 tokens.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.types import Request
from support.builders.vocabularies import models_dir
from support.fakes.engine import FakeEngine, ids, make_app, serving

NODE = Path(__file__).parent / "node"
BIN = NODE / "node_modules" / ".bin"
TEMPLATE = models_dir() / "templates" / "Qwen-Qwen3-0.6B.jinja"
PRINT = "echo magic-$((6*7)) > out.txt; cat out.txt"
LONG = 8000  # agents also ask for titles, with short prompts


def test_ai_sdk_providers_answer_every_question(url: str) -> None:
    command = ["node", "ai_sdk.js", url, "smollm2"]
    done = subprocess.run(command, cwd=NODE, capture_output=True, text=True, timeout=280)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == 4 * 5 + 2, done.stderr
    assert [result for result in results if "error" in result] == []
    tools = [result["value"] for result in results if result["question"] == "tools"]
    assert all(value and value[0].startswith("sunny in ") for value in tools)


class Script:
    """Answers long prompts in turn: the call of a tool, then a text. Keeps what results came back."""

    def __init__(self, tool: str, **arguments: str) -> None:
        call = json.dumps({"name": tool, "arguments": arguments})
        self.answers = [f"<tool_call>\n{call}\n</tool_call>", "It printed magic-42."]

    def __call__(self, request: Request) -> list[int]:
        if len(request.prompt) < LONG:
            return ids("A title")
        return ids(self.answers.pop(0))


@contextmanager
def agent_server(script: Script) -> Iterator[str]:
    engine = FakeEngine(script, n_ctx=1 << 17, step=16)
    with serving(make_app(engine, chat_template=TEMPLATE, any_model=True)) as url:
        yield url


def run(folder: Path, *command: str, **environment: str) -> str:
    home = folder / "home"
    home.mkdir()
    work = folder / "work"
    work.mkdir(exist_ok=True)
    done = subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        cwd=work,
        env={**os.environ, "HOME": str(home), "PWD": str(work), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (work / "out.txt").read_text() == "magic-42\n"
    return done.stdout


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
