"""A real server with two adapters: requests side by side, scales over HTTP, and a crash in the middle."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from engine.quantize.quantizer import quantize_file
from support.builders.golden import TinyModel, matrices
from support.builders.lora import random_parts, write_adapter
from support.fakes.engine import STORIES
from support.server_process import ServerProcess, ggserve

SETS: list[list[dict[str, float]]] = [
    [],
    [{"id": 0, "scale": 1}],
    [{"id": 1, "scale": 0.5}],
    [{"id": 0, "scale": 0.5}, {"id": 1, "scale": 1}],
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A batch-invariant model and two adapters."""
    folder: Path = tmp_path_factory.mktemp("lora")
    quantize_file(STORIES, folder / "model.gguf", "Q8_0", requantize=True)
    quantize_file(STORIES, folder / "f32.gguf", "F32", requantize=True)
    tiny = TinyModel.read(folder / "f32.gguf")
    for seed in (0, 1):
        parts = random_parts(tiny, matrices(tiny), 4, seed)
        write_adapter(folder / f"{seed}.gguf", "llama", parts, alpha=0.5)
    return [str(folder / name) for name in ("model.gguf", "0.gguf", "1.gguf")]


@pytest.fixture(scope="module")
def server(files: list[str]) -> Iterator[ServerProcess]:
    model, first, second = files
    arguments = ("--model", f"m={model}", "--lora", first, "--lora", f"{second}=0", "--context-size", "512")
    with ServerProcess(*arguments, "--parallel", "4", bundled=False) as process:
        yield process
        assert process.end() == 0


def text(server: ServerProcess, piece: Any = None, **fields: Any) -> str:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    stream = client.completions.create(
        model="m",
        prompt="Once upon a time",
        max_tokens=400,
        temperature=0,
        stream=True,
        extra_body={"ignore_eos": True, **fields},
    )
    parts = []
    for chunk in stream:
        parts.append(chunk.choices[0].text)
        if piece is not None:
            piece()
    return "".join(parts)


def test_streams_with_different_adapters_continue_with_the_same_text_after_a_crash(
    server: ServerProcess,
) -> None:
    alone = [text(server, lora=lora, cache_prompt=False) for lora in SETS]
    assert len(set(alone)) == len(SETS)
    pieces = threading.Semaphore(0)
    with ThreadPoolExecutor(len(SETS)) as pool:
        futures = [pool.submit(text, server, pieces.release, lora=lora) for lora in SETS]
        for _ in range(20):
            assert pieces.acquire(timeout=30)
        (pid,) = server.engine_pids()
        os.kill(pid, signal.SIGKILL)
        assert [future.result() for future in futures] == alone
    server.wait_for("the engine process was killed by SIGKILL")


def test_request_without_the_field_uses_the_servers_scales(server: ServerProcess) -> None:
    with httpx.Client(base_url=server.url) as http:
        listed = http.get("/lora-adapters").json()
        assert [(each["id"], each["path"], each["scale"]) for each in listed] == [
            (0, "0.gguf", 1.0),
            (1, "1.gguf", 0.0),
        ]
        assert text(server) == text(server, lora=SETS[1])
        assert http.post("/lora-adapters", json=SETS[3]).json() == {"success": True}
        assert text(server) == text(server, lora=SETS[3])
        http.post("/lora-adapters", json=SETS[1])


def test_an_adapter_that_does_not_fit_is_named_at_the_start(files: list[str]) -> None:
    done = ggserve("infer", "--model", files[0], "--lora", files[0], "-p", "a", "-n", "1")
    assert done.returncode != 0
    assert "is of type 'model', not a LoRA adapter" in done.stderr
    assert "Traceback" not in done.stderr


def test_infer_with_lora_uses_the_adapters(files: list[str]) -> None:
    texts = [
        ggserve(
            "infer", "--model", files[0], *lora, "-p", "Once upon a time", "-n", "24", "--temperature", "0"
        )
        for lora in ((), ("--lora", f"{files[1]}=8"), ("--lora", f"{files[1]}=0"))
    ]
    assert [done.returncode for done in texts] == [0, 0, 0]
    assert texts[0].stdout == texts[2].stdout != texts[1].stdout
