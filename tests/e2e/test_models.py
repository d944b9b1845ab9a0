"""Several models, loaded, unloaded and swapped under requests, in a real server with real engines."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import openai
import psutil
import pytest

from support.builders.golden import FOLDER
from support.server_process import ServerProcess
from support.waiting import wait_until

STORIES = Path(__file__).parents[2] / "models" / "stories.gguf"
PROMPT = "Once upon a time"


def ask(server: ServerProcess, path: str, **body) -> tuple[int, dict]:
    address = urlsplit(server.url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=120)
    try:
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def states(server: ServerProcess) -> dict[str, str]:
    return {card["id"]: card["state"] for card in server.get("/v1/models")["data"]}


def text(server: ServerProcess, model: str, n: int = 8) -> str:
    status, body = ask(server, "/v1/completions", model=model, prompt=PROMPT, max_tokens=n, temperature=0)
    assert status == 200, body
    return body["choices"][0]["text"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "b").mkdir()
    shutil.copy(STORIES, tmp_path / "a.gguf")
    shutil.copy(STORIES, tmp_path / "b" / "anything.gguf")
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[ServerProcess]:
    options = ("--models-dir", str(folder), "--models-max", "1", "--keep-alive-s", "0.05")
    with ServerProcess(*options, bundled=False) as process:
        yield process
        assert process.end() == 0


def test_two_models_under_load_take_turns_and_no_request_fails(server):
    expected = text(server, "a")
    with ThreadPoolExecutor(4) as pool:
        texts = list(pool.map(lambda i: text(server, "ab"[i % 2]), range(12)))
    assert texts == [expected] * 12
    assert sorted(states(server).values()) == ["ready", "unloaded"]
    assert len(server.engine_pids()) == 1


def test_stream_waits_for_its_model_and_is_not_cut_off_by_another_load(server):
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0, timeout=60) as client:
        stream = client.completions.create(
            model="a", prompt=PROMPT, max_tokens=300, stream=True, extra_body={"ignore_eos": True}
        )
        first = next(iter(stream))
        assert first.model == "a"
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(text, server, "b")
            chunks = [chunk for chunk in stream if chunk.choices]
            assert chunks[-1].choices[0].finish_reason == "length"
            assert other.result(60)
    assert states(server) == {"a": "unloaded", "b": "ready"}


def test_swap_under_load_fails_no_request(server, folder):
    expected = text(server, "a", 40)
    old = server.engine_pids()
    stop, results = threading.Event(), []

    def requests() -> None:
        while not stop.is_set():
            results.append(text(server, "a", 40))

    threads = [threading.Thread(target=requests) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2):
            shutil.copy(STORIES, folder / "new")
            os.replace(folder / "new", folder / "a.gguf")
            assert ask(server, "/v1/models/load", model="a", reload=True)[0] == 200
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert set(results) == {expected}
    wait_until(lambda: len(server.engine_pids()) == 1)
    assert server.engine_pids() != old


def test_models_follow_the_files_in_the_folder(server, folder):
    assert text(server, "b")
    shutil.copy(STORIES, folder / "c.gguf")
    wait_until(lambda: "c" in states(server))
    assert text(server, "c")
    (folder / "c.gguf").unlink()
    wait_until(lambda: "c" not in states(server))
    assert ask(server, "/v1/completions", model="c", prompt=PROMPT)[0] == 404


def test_damaged_file_does_not_unload_other_models(server, folder):
    (folder / "bad.gguf").write_bytes(STORIES.read_bytes()[:100_000])
    assert text(server, "a")
    wait_until(lambda: "bad" in states(server))
    status, body = ask(server, "/v1/completions", model="bad", prompt=PROMPT)
    assert (status, body["error"]["code"]) == (503, "load_failed")
    assert str(folder) not in json.dumps([body, server.get("/health")])
    assert states(server)["a"] == "ready"


def test_ollamas_keep_alive_loads_and_unloads_models(server):
    assert ask(server, "/api/generate", model="a", keep_alive=1)[1]["done_reason"] == "load"
    (loaded,) = server.get("/api/ps")["models"]
    assert loaded["name"] == "a:latest"
    assert loaded["expires_at"] < "9999"
    wait_until(lambda: states(server)["a"] == "unloaded")
    assert server.get("/api/ps")["models"] == []
    ask(server, "/api/generate", model="a", keep_alive=-1)
    assert server.get("/api/ps")["models"][0]["expires_at"] == "9999-12-31T23:59:59Z"
    assert ask(server, "/api/generate", model="a", keep_alive=0)[1]["done_reason"] == "unload"
    wait_until(lambda: states(server)["a"] == "unloaded")


def test_kill_9_of_one_engine_leaves_the_other_serving(folder):
    models = ("--model", f"a={folder / 'a.gguf'}", "--model", f"b={folder / 'b'}")
    with ServerProcess(*models) as server:
        pids = {}
        for pid in server.engine_pids():
            maps = {entry.path for entry in psutil.Process(pid).memory_maps()}
            pids["a" if str(folder / "a.gguf") in maps else "b"] = pid
        expected = text(server, "b")
        os.kill(pids["a"], signal.SIGKILL)
        assert text(server, "b") == expected
        assert text(server, "a") == expected  # after its restart
        assert server.end() == 0


def test_a_model_that_cannot_be_loaded_leaves_the_other_serving(folder):
    (folder / "bad.gguf").write_bytes(b"junk")
    with ServerProcess(
        "--model", f"bad={folder / 'bad.gguf'}", "--model", f"a={folder / 'a.gguf'}"
    ) as server:
        assert text(server, "a")
        assert states(server) == {"bad": "failed", "a": "ready"}
        assert server.end() == 0


def test_replaced_file_is_loaded_as_a_whole_when_the_engine_restarts(folder):
    path = folder / "a.gguf"
    with ServerProcess("--model", str(path)) as server:
        before = server.get("/v1/models/a")["meta"]
        shutil.copy(FOLDER / "qwen2.gguf", folder / "new")
        os.replace(folder / "new", path)
        (pid,) = server.engine_pids()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: server.get("/v1/models/a").get("meta", before)["architecture"] == "qwen2")
        status, body = ask(server, "/tokenize", model="a", content="Once", with_pieces=True)
        assert status == 200, body
        assert ask(server, "/v1/completions", model="a", prompt=[5, 6, 7], max_tokens=3)[0] == 200
        server.wait_for("the file was replaced since it was loaded")
        assert server.end() == 0


def test_memory_budget_decides_which_models_are_unloaded(folder):
    options = (
        "--models-dir",
        str(folder),
        "--models-memory",
        "24M",
        "--context-size",
        "256",
        "--kv-cells",
        "256",
    )
    with ServerProcess(*options, bundled=False) as server:
        assert text(server, "a")
        began = time.monotonic()
        assert text(server, "b")
        assert time.monotonic() - began < 60
        used = [model["size"] for model in server.get("/api/ps")["models"]]
        assert sum(used) <= 24 << 20
        assert server.end() == 0
    with ServerProcess("--models-dir", str(folder), "--models-memory", "1M", bundled=False) as server:
        status, body = ask(server, "/v1/completions", model="a", prompt=PROMPT)
        assert (status, body["error"]["code"]) == (503, "out_of_memory")
        assert "1.0 MiB" in body["error"]["message"]
        assert str(folder) not in body["error"]["message"]
        assert server.end() == 0
