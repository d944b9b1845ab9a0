"""Vercel's AI SDK, with the providers for OpenAI's (chat, Responses, compatible) and Anthropic's API."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from support.client_environments import LIMIT_S

NODE = Path(__file__).parent / "node"


def test_ai_sdk_providers_answer_every_question(url: str) -> None:
    command = ["node", "ai_sdk.js", url, "smollm2"]
    done = subprocess.run(command, cwd=NODE, capture_output=True, text=True, timeout=LIMIT_S)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == 4 * 5 + 2, done.stderr
    assert [result for result in results if "error" in result] == []
    tools = [result["value"] for result in results if result["question"] == "tools"]
    assert all(value and value[0].startswith("sunny in ") for value in tools)
