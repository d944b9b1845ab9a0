"""Open WebUI's backend, with the same server as a connection of OpenAI's API and as one of Ollama's."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.client_environments import LIMIT_S, executable

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
NAMES = ("smollm2", "smollm2:latest")  # through OpenAI's API, and through Ollama's
SCHEMA = {"type": "object", "properties": {"town": {"enum": ["Lyon", "Nice"]}}, "required": ["town"]}
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a town",
        "parameters": {
            "type": "object",
            "properties": {"town": {"enum": ["Paris", "Rome"]}},
            "required": ["town"],
        },
    },
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def backend(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of the backend, which has signed in."""
    folder, port = tmp_path_factory.mktemp("open_webui"), free_port()
    environment = {
        "HOME": str(folder),
        "DATA_DIR": str(folder / "data"),
        "WEBUI_AUTH": "False",
        "WEBUI_SECRET_KEY": "a key of the test, which is long enough",
        "OPENAI_API_BASE_URL": f"{url}/v1",
        "OPENAI_API_KEY": "none",
        "OLLAMA_BASE_URL": url,
        "RAG_EMBEDDING_ENGINE": "ollama",
        "OFFLINE_MODE": "True",
        "ENABLE_VERSION_UPDATE_CHECK": "False",
        "SCARF_NO_ANALYTICS": "true",
        "DO_NOT_TRACK": "true",
        "ANONYMIZED_TELEMETRY": "false",
    }
    command = [executable("open-webui", "open-webui"), "serve", "--host", "127.0.0.1", "--port", str(port)]
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **environment}, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=LIMIT_S) as client:
            wait_for(client, process, folder / "log")
            signed = client.post("/api/v1/auths/signin", json={"email": "", "password": ""}).json()
            client.headers["authorization"] = f"Bearer {signed['token']}"
            yield client
    finally:
        process.terminate()
        process.wait(60)


def wait_for(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until it answers: its start imports a lot."""
    end = time.monotonic() + LIMIT_S
    while True:
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            if client.get("/health", timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < end, log.read_text()[-2000:]
        time.sleep(0.5)


def ask(backend: httpx.Client, **body: Any) -> httpx.Response:
    response = backend.post("/api/chat/completions", json={"messages": QUESTION, "stream": False, **body})
    assert response.status_code == 200, response.text
    return response


def test_open_webui_lists_the_model_of_both_connections(backend: httpx.Client) -> None:
    models = {model["id"]: model["owned_by"] for model in backend.get("/api/models").json()["data"]}
    assert models.items() >= {NAMES[0]: "openai", NAMES[1]: "ollama"}.items()


@pytest.mark.parametrize("model", NAMES)
def test_open_webui_gets_whole_and_streamed_answers(backend: httpx.Client, model: str) -> None:
    backend.get("/api/models")  # it answers to names that it has listed
    whole = ask(backend, model=model).json()
    assert whole["choices"][0]["message"]["content"]
    assert whole["usage"]["completion_tokens"] > 0
    lines = ask(backend, model=model, stream=True).text.splitlines()
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    assert data[-1] == "[DONE]"
    deltas = [choice["delta"] for line in data[:-1] for choice in json.loads(line)["choices"]]
    assert "".join(delta.get("content") or "" for delta in deltas)


@pytest.mark.parametrize("model", NAMES)
def test_open_webui_constrains_answers_and_passes_parameters_on(backend: httpx.Client, model: str) -> None:
    backend.get("/api/models")
    format = {"type": "json_schema", "json_schema": {"name": "town", "schema": SCHEMA}}
    params = {"temperature": 0.5, "top_k": 5, "min_p": 0.1, "seed": 1, "repeat_penalty": 1.1, "stop": ["END"]}
    [choice] = ask(backend, model=model, response_format=format, params=params).json()["choices"]
    assert json.loads(choice["message"]["content"])["town"] in ("Lyon", "Nice")


def test_open_webui_calls_tools(backend: httpx.Client) -> None:
    backend.get("/api/models")
    [choice] = ask(backend, model=NAMES[0], tools=[TOOL], tool_choice="required").json()["choices"]
    [call, *_] = choice["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"])["town"] in ("Paris", "Rome")


def test_open_webui_forwards_ollamas_api(backend: httpx.Client) -> None:
    def post(path: str, **body: Any) -> Any:
        response = backend.post(f"/ollama/api/{path}", json={"model": NAMES[1], **body})
        assert response.status_code == 200, response.text
        return response.json()

    assert backend.get("/ollama/api/version").json()["version"]
    assert "completion" in post("show")["capabilities"]
    assert post("generate", prompt="Hello", stream=False, options={"num_predict": 5})["response"]
    assert len(post("embed", input=["a", "b"])["embeddings"]) == 2
