"""Real models behind a real server: defaults, parts of characters, long inputs, hints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import engine
from engine.convert.converter import convert
from support.server_process import ServerProcess


@pytest.fixture(scope="module")
def minilm_gguf(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("minilm") / "minilm.gguf"
    convert(minilm, path, "f16")
    return path


@pytest.fixture(scope="module")
def server(minilm_gguf: Path, smollm2: Path) -> Iterator[ServerProcess]:
    models = ("-m", f"mini={minilm_gguf}", "-m", f"smol={smollm2}")
    with ServerProcess(*models, "--threads", "1", "--context-size", "512", "--parallel", "2") as process:
        yield process


def post(server: ServerProcess, path: str, **body: Any) -> httpx.Response:
    return httpx.post(server.url + path, json=body, timeout=280)


def test_answers_without_parameters_are_likelier_than_draws_from_the_whole_vocabulary(
    server: ServerProcess,
) -> None:
    """ "Say hi" was answered with nonsense at temperature 1 over 49152 tokens."""
    body = {"model": "smol", "messages": [{"role": "user", "content": "Say hi"}], "logprobs": True}
    whole = {"temperature": 1, "top_p": 1, "top_k": 0, "min_p": 0}
    means = []
    for fields in ({}, whole):
        logprobs: list[float] = []
        for seed in range(6):
            reply = post(server, "/v1/chat/completions", **body, **fields, seed=seed, max_tokens=16).json()
            logprobs += [entry["logprob"] for entry in reply["choices"][0]["logprobs"]["content"]]
        means.append(float(np.mean(logprobs)))
    assert means[0] > -2.0  # llama-server's, with the same values: -1.50
    assert means[1] < means[0] - 0.5


def test_defaults_are_in_props(server: ServerProcess) -> None:
    props = httpx.get(f"{server.url}/props", params={"model": "smol"}, timeout=280).json()
    values = props["default_generation_settings"]["params"]
    assert [values[name] for name in ("temperature", "top_k", "top_p", "min_p")] == [0.8, 40, 0.95, 0.05]


def test_partial_characters_are_shown_as_in_llama_server(server: ServerProcess) -> None:
    """Its answer to the same request: `token` and `bytes` of the most likely tokens, and the content."""
    reply = post(
        server,
        "/completion",
        model="smol",
        prompt="Hello",
        grammar='root ::= " 안녕 ok"',
        n_predict=12,
        temperature=0,
        n_probs=3,
    ).json()
    shown = [entry for entry in reply["completion_probabilities"] if entry["id"] != 0]
    assert reply["content"] == " 안녕 ok"
    assert [entry["id"] for entry in shown][:7] == [216, 183, 239, 226, 182, 223, 239]
    assert [entry["token"] for entry in shown][:7] == [" ", "", "", "안", "", "", "녕"]
    assert b"".join(bytes(entry["bytes"]) for entry in shown).decode() == " 안녕 ok"
    assert shown[3]["top_logprobs"][0] | {"logprob": 0} == {
        "id": 226,
        "token": "\ufffd",
        "bytes": [136],
        "logprob": 0,
    }
    following = shown[7]["top_logprobs"][0]
    assert (following["id"], following["token"], following["bytes"]) == (33085, "", [237, 149])


def test_hints_fit_an_embedding_model(server: ServerProcess) -> None:
    assert server.wait_for(r"curl -N http://\S+(/v1/\w+)")[1] == "/v1/embeddings"
    models = httpx.get(f"{server.url}/health", timeout=280).json()["models"]
    assert {name: model["use"] for name, model in models.items()} == {"mini": "embeddings", "smol": "chat"}
    error = post(server, "/v1/completions", model="mini", prompt="x").json()["error"]
    assert error["message"].endswith("cannot generate text; use /v1/embeddings")


def test_texts_longer_than_the_models_positions_are_truncated_on_request(
    server: ServerProcess, minilm_gguf: Path
) -> None:
    text = "The quick brown fox jumps over the lazy dog. " * 100
    refused = post(server, "/v1/embeddings", model="mini", input=text).json()["error"]
    assert "the model takes at most 512" in refused["message"]
    assert "--context-size" not in refused["message"]  # the model has 512 learned positions
    reply = post(server, "/v1/embeddings", model="mini", input=text, truncate_prompt_tokens=-1).json()
    ids = engine.load_tokenizer(minilm_gguf).encode(text)
    assert reply["warnings"] == [f"input: only the first 512 of {len(ids)} tokens are used"]
    # [CLS] and [SEP] stay, as transformers truncates.
    cut = post(server, "/v1/embeddings", model="mini", input=[*ids[:511], ids[-1]]).json()
    np.testing.assert_allclose(reply["data"][0]["embedding"], cut["data"][0]["embedding"], rtol=0, atol=1e-5)


def test_request_without_a_limit_ends_where_the_model_ends(server: ServerProcess) -> None:
    messages = [{"role": "user", "content": "Say hi"}]
    reply = post(
        server, "/v1/chat/completions", model="smol", messages=messages, temperature=0, max_tokens=-1
    ).json()
    assert reply["choices"][0]["finish_reason"] == "stop"
    assert "warnings" not in reply
