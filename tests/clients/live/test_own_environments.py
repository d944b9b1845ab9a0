"""Libraries in environments of their own: each asks its questions in a script, and prints the answers."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

from support.client_environments import LIMIT_S, executable

HERE = Path(__file__).parent
PATTERNS = {
    "text": r"(?s).+",
    "regex": r"[0-9]{3}-[a-f]{4}",
    "choice": "Lyon|Nice",
    "grammar": "(Lyon|Nice) [a-z]{3}",
}


def answers(name: str, script: str, url: str) -> list[dict[str, Any]]:
    command = [executable(name, "python"), HERE / script, url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_guidance_constraints_are_enforced(url: str) -> None:
    results = answers("guidance", "guidance_client.py", url)
    assert len(results) == 5 + 5 + 2
    for result in results:
        if result["question"] == "json":
            value = json.loads(result["value"])
            assert list(value) == ["name", "country", "people"]
            assert len(value["name"]) <= 12
            assert value["country"] in ("Spain", "Italy")
            assert 10 <= value["people"] <= 99
        else:
            assert re.fullmatch(PATTERNS[result["question"]], result["value"]), result


def test_llama_index_returns_answers_and_objects_and_calls_tools(url: str) -> None:
    results = {
        result["question"]: result["value"] for result in answers("llama-index", "llama_index_client.py", url)
    }
    assert all(results[question] for question in ("text", "chat", "stream"))
    assert results["object"]["country"] in ("France", "Spain")
    assert results["tool"]["name"] == "get_weather"
    assert results["tool"]["arguments"]["town"] in ("Paris", "Rome")
