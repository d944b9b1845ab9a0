"""RPC workers: what is refused before ggml connects, and what happens when one is lost."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from support.builders.golden import golden
from support.server_process import ServerProcess
from support.waiting import wait_until

ROOT = Path(__file__).parents[2]


def test_worker_on_a_signal_exits_cleanly(make_worker: Callable[..., Any]) -> None:
    assert make_worker("--device", "CPU").stop() == 0


def test_worker_whose_device_lacks_a_feature_exits_with_one_line(
    make_worker: Callable[..., Any], tmp_path: Path
) -> None:
    """CLBlast has flash attention for heads of whole sixteens; these are eights."""
    lent = make_worker("--device", "CLBlast0", log=tmp_path / "log")
    command = [sys.executable, "-m", "server", "infer", "-m", str(golden("llama-gqa-tied").path), "-p", "a"]
    more = ["--use-gpu", "--rpc", lent.address, "--device", "RPC0", "--context-size", "64"]
    done = subprocess.run([*command, *more, "-n", "1"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr  # nobody who did not ask for it gets it
    done = subprocess.run([*command, *more, "--flash-attn", "on"], capture_output=True, timeout=120)
    assert done.returncode != 0
    assert lent.process.wait(20) != 0
    assert "CLBlast0 cannot compute FLASH_ATTN_EXT" in (tmp_path / "log").read_text()


def post(url: str, body: dict[str, Any]) -> Any:
    data = json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


def stream(url: str, body: dict[str, Any]) -> Iterator[str]:
    """The pieces of a completion as they come."""
    data = json.dumps(body | {"stream": True}).encode()
    request = urllib.request.Request(f"{url}/v1/completions", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        for line in answer:
            if line.startswith(b"data: {"):
                event = json.loads(line[6:])
                assert "error" not in event, event
                yield from (choice["text"] for choice in event["choices"])


def test_lost_worker_does_not_end_the_server(make_worker: Callable[..., Any], tmp_path: Path) -> None:
    """The engine ends with its worker; the server lives on, says so, and resumes when the worker is back."""
    first = make_worker("--device", "CPU")
    port = first.address.split(":")[1]
    with socket.create_server(("127.0.0.1", 0)) as free:
        http = free.getsockname()[1]
    command = [sys.executable, "-m", "server", "serve", "--port", str(http), "--use-gpu"]
    command += ["--model", str(ROOT / "models" / "stories.gguf"), "--rpc", first.address, "--threads", "1"]
    environment = {**os.environ, "GGSERVE_CLBLAST_CPU": "0"}  # else the model would be shared with that
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    url = f"http://127.0.0.1:{http}"
    try:
        body = {"prompt": "Once upon a time", "max_tokens": 200, "temperature": 0, "ignore_eos": True}
        before = eventually(server, lambda: post(f"{url}/v1/completions", body)["choices"][0]["text"])
        with urllib.request.urlopen(f"{url}/health", timeout=10) as answer:
            placement = json.load(answer)["models"]["stories"]["placement"]
        with urllib.request.urlopen(f"{url}/v1/models", timeout=10) as answer:
            assert json.load(answer)["data"][0]["meta"]["placement"] == placement
        assert placement == ["RPC0"] * 5
        pieces = stream(url, body)
        started = [next(pieces) for _ in range(3)]
        first.process.kill()
        first.process.wait()
        with ThreadPoolExecutor(2) as pool:
            rest = pool.submit("".join, pieces)
            waiting = pool.submit(post, f"{url}/v1/completions", body)
            time.sleep(5)  # longer than the attempts of an engine that fails by itself last
            assert server.poll() is None
            assert not rest.done()
            with pytest.raises(urllib.error.HTTPError) as ill:
                urllib.request.urlopen(f"{url}/health", timeout=10)
            assert ill.value.code == 503
            assert "restarting" in ill.value.read().decode()
            assert "no worker" in (tmp_path / "log").read_text()  # the reason is not for the public
            command = [sys.executable, "-m", "server", "rpc-worker", "--port", port, "--device", "CPU"]
            command += ["--threads", "1"]
            again = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                assert waiting.result(120)["choices"][0]["text"] == before
                assert "".join(started) + rest.result(120) == before
            finally:
                again.kill()
                again.wait()
    finally:
        server.terminate()
        server.wait(30)


class Relay:
    """Between an engine and its worker; `mode` says what becomes of the worker's answers."""

    def __init__(self, worker: str) -> None:
        host, port = worker.split(":")
        self.mode = "pass on"
        self._worker = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                engine, _ = self._listener.accept()
                worker = socket.create_connection(self._worker)
                self._open += [engine, worker]
                for source, target, answers in ((engine, worker, False), (worker, engine, True)):
                    threading.Thread(target=self._pass, args=(source, target, answers), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if answers and self.mode == "garbage":
                    target.sendall(b"\xa5" * len(data))
                elif not answers or self.mode == "pass on":
                    target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for sock in (self._listener, *self._open):
            sock.close()


@pytest.mark.parametrize("mode", ["garbage", "silence"])
def test_worker_that_answers_nonsense_or_nothing_does_not_end_the_server(
    mode: str, make_worker: Callable[..., Any], tmp_path: Path
) -> None:
    """The engine ends or is ended; the server lives on, and resumes when the worker is one again."""
    relay = Relay(make_worker("--device", "CPU").address)
    environment = {"GGSERVE_CLBLAST_CPU": "0"}  # else the model would be shared with that
    options = ("--use-gpu", "--rpc", relay.address, "--threads", "1", "--engine-timeout-s", "1")
    with closing(relay), ServerProcess(*options, variables=environment) as server:
        body = {"prompt": "Once upon a time", "max_tokens": 200, "temperature": 0, "ignore_eos": True}
        before = post(f"{server.url}/v1/completions", body)["choices"][0]["text"]
        (engine,) = server.engine_pids()
        pieces = stream(server.url, body)
        started = [next(pieces) for _ in range(3)]
        relay.mode = mode
        with ThreadPoolExecutor(1) as pool:
            rest = pool.submit("".join, pieces)
            wait_until(lambda: server.engine_pids() != [engine], 200)
            assert not rest.done()
            relay.mode = "pass on"
            assert "".join(started) + rest.result(200) == before
        assert server.end() == 0


def eventually(server: subprocess.Popen[bytes], call: Callable[[], str], seconds: float = 120) -> str:
    """What `call` returns once it works."""
    end = time.monotonic() + seconds
    while True:
        try:
            return call()
        except OSError:
            assert server.poll() is None
            if time.monotonic() > end:
                raise
            time.sleep(0.2)
