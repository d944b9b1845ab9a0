"""Slots of a real server: saved, brought back by another one, and by one that was killed while it saved."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import httpx
import pytest

from support.server_process import ServerProcess

PROMPT = "Once upon a time there was a little dog who lived in a big house with a red door. One day"
OPTIONS = ("--threads", "1", "--parallel", "4")


@pytest.fixture
def start(tmp_path):
    """Servers that keep their slots in `tmp_path`; several after each other."""
    started = []

    def begin() -> ServerProcess:
        process = ServerProcess(*OPTIONS, "--slot-save-path", str(tmp_path))
        started.append(process)
        return process

    yield begin
    for process in started:
        with process:
            pass


def complete(server: ServerProcess, prompt: str = PROMPT, slot: int = 1) -> dict:
    body = {"prompt": prompt, "n_predict": 24, "temperature": 0, "id_slot": slot, "return_tokens": True}
    answer = httpx.post(server.url + "/completion", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def act(server: ServerProcess, slot: int, action: str, name: str | None = None) -> dict:
    body = {} if name is None else {"filename": name}
    answer = httpx.post(f"{server.url}/slots/{slot}?action={action}", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_saved_slot_continues_in_another_server(start, tmp_path):
    with start() as first:
        text = complete(first)
        assert text["timings"]["cached_n"] == 0
        saved = act(first, 1, "save", "a.bin")
        assert saved["n_written"] == (tmp_path / "a.bin").stat().st_size
        erased = act(first, 1, "erase")
        assert erased["n_erased"] == saved["n_saved"]
        assert complete(first)["timings"]["cached_n"] == 0
        assert first.end() == 0
    with start() as second:
        restored = act(second, 3, "restore", "a.bin")
        assert restored["n_restored"] == saved["n_saved"]
        assert restored["n_read"] == saved["n_written"]
        again = complete(second, slot=3)
        assert again["content"] == text["content"]
        n = again["timings"]["cached_n"] + again["timings"]["prompt_n"]
        assert again["timings"] | {"prompt_n": 1, "cached_n": n - 1} == again["timings"]
        assert second.end() == 0


def test_damaged_slot_file_is_refused_without_side_effects(start, tmp_path):
    with start() as server:
        complete(server)
        act(server, 1, "save", "a.bin")
        data = bytearray((tmp_path / "a.bin").read_bytes())
        data[-9] ^= 1
        (tmp_path / "b.bin").write_bytes(data)
        answer = httpx.post(server.url + "/slots/2?action=restore", json={"filename": "b.bin"})
        assert answer.status_code == 400
        assert "checksum" in answer.text
        assert str(tmp_path) not in answer.text
        assert act(server, 2, "restore", "a.bin")["n_restored"]
        assert server.end() == 0


def test_server_killed_during_a_save_leaves_the_old_file_or_the_new(start, tmp_path):
    """The engine process goes with it, wherever it is in the file."""
    path = tmp_path / "a.bin"
    with start() as server:
        complete(server, PROMPT[:20])
        sizes = {act(server, 1, "save", "a.bin")["n_saved"]}
        long = complete(server)
        sizes.add(act(server, 1, "save", "b.bin")["n_saved"])
        assert long["content"]
        stop = threading.Event()

        def save() -> None:
            while not stop.is_set():
                try:
                    httpx.post(server.url + "/slots/1?action=save", json={"filename": "a.bin"}, timeout=5)
                except httpx.HTTPError:
                    return

        writer = threading.Thread(target=save)
        writer.start()
        time.sleep(0.05)
        engines = server.engine_pids()
        os.kill(server.process.pid, signal.SIGKILL)
        server.wait()
        stop.set()
        writer.join(10)
        end = time.monotonic() + 10
        while any(Path(f"/proc/{pid}/stat").exists() for pid in engines) and time.monotonic() < end:
            time.sleep(0.01)
    with start() as server:
        assert path.exists()
        assert act(server, 0, "restore", "a.bin")["n_restored"] in sizes
        assert server.end() == 0
