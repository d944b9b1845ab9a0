"""Use the installed ggserve as a newcomer would: devices, a text, a chat, a server. No network is needed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
import time
import urllib.request
from pathlib import Path

import engine
from server.models.bundled import bundled_model

GGSERVE = str(Path(sysconfig.get_path("scripts"), "ggserve"))
OPTIONS = ["--model", str(bundled_model()), "--temperature", "0", "-n", "20"]


def ggserve(*arguments: str, text: str = "") -> str:
    done = subprocess.run(
        [GGSERVE, *arguments], input=text, capture_output=True, text=True, encoding="utf-8", timeout=300
    )
    if done.returncode:
        sys.exit(f"ggserve {' '.join(arguments)}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def served(question: str) -> str:
    """The answer of a server."""
    process = subprocess.Popen(
        [GGSERVE, "serve", "--port", "0", *OPTIONS[:2]], stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if match := re.search(r"on (http://\S+), ready", line):
                break
        else:
            sys.exit("ggserve serve did not start")
        body = {"messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 20}
        request = urllib.request.Request(
            match[1] + "/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=120) as reply:
            content: str = json.load(reply)["choices"][0]["message"]["content"]
            return content
    finally:
        process.kill()
        process.wait()


def main() -> None:
    began = time.monotonic()
    print(f"engine {engine.__file__}")
    print(ggserve("--version") + ggserve("devices"), end="")
    print(ggserve("infer", *OPTIONS, "-p", "Once upon a time"), end="")
    question = "Tell me a story about a dog."
    answer = ggserve("chat", *OPTIONS, text=question)
    print(answer, end="")
    if served(question).strip() != answer.strip():
        sys.exit("ggserve serve and ggserve chat answer differently")
    print(f"tried in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
