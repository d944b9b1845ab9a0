"""Embeddings by a real server: the vectors are those of the engine, and streams go on beside."""

from __future__ import annotations

import threading

import httpx
import numpy as np
import openai
import pytest

import engine
from engine.tasks.embedding import embed, normalized
from support.builders.golden import FOLDER, golden
from support.server_process import ROOT, ServerProcess

BERT = FOLDER / "bert.gguf"
LLAMA = golden("llama-gqa-tied").path
RANK = FOLDER / "bert-rank.gguf"


@pytest.fixture(scope="module")
def server():
    files = {"bert": BERT, "llama": LLAMA, "rank": RANK, "stories": ROOT / "models" / "stories.gguf"}
    arguments = [f"--model={name}={path}" for name, path in files.items()]
    with ServerProcess("--threads", "1", "--max-batch-tokens", "32", *arguments) as process:
        yield process
        assert process.end() == 0


@pytest.fixture(scope="module")
def api(server):
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


def close(got: list[float], expected: np.ndarray) -> bool:
    return float(np.abs(np.float32(got) - expected).max()) < 1e-4


@pytest.mark.parametrize(("name", "path"), [("bert", BERT), ("llama", LLAMA)])
def test_vectors_match_those_of_the_engine(api, name, path):
    """Also of inputs longer than the physical batch, and of many that share batches."""
    with np.load(FOLDER / "bert.npz") as arrays:
        prompt = arrays["prompt"].tolist()
    inputs = [prompt[:n] for n in (150, 1, 33, 32, 64, 7, 5, 100)] * 2
    answer = api.embeddings.create(model=name, input=inputs)
    assert answer.usage.prompt_tokens == sum(map(len, inputs))
    with engine.load(path, engine.ModelParameters(use_gpu=False, n_threads=1, kv_cells=None)) as model:
        for data, tokens in zip(answer.data, inputs, strict=True):
            assert close(data.embedding, model.embed(tokens)), data.index


def test_pooling_none_returns_a_vector_per_token(server):
    answer = httpx.post(
        server.url + "/embeddings", json={"model": "bert", "input": [2, 9, 8, 3], "pooling": "none"}
    )
    with engine.load(BERT, engine.ModelParameters(use_gpu=False, n_threads=1)) as model:
        expected = model.embed([2, 9, 8, 3], pooling="none", normalize=False)
    assert close(answer.json()[0]["embedding"], expected)


def test_scores_match_those_of_the_engine(server):
    documents = ["the thing", "unable word", "", "in there, word for word " * 8]
    answer = httpx.post(
        server.url + "/v1/rerank", json={"model": "rank", "query": "the word", "documents": documents}
    ).json()
    with engine.load(RANK, engine.ModelParameters(use_gpu=False, n_threads=1)) as model:
        pairs = [model.tokenizer.encode_pair("the word", document) for document in documents]
        expected = [model.embed(tokens, second=start)[0] for tokens, start in pairs]
    actual = {result["index"]: result["relevance_score"] for result in answer["results"]}
    assert close([actual[i] for i in range(4)], np.float32(expected))
    assert [result["index"] for result in answer["results"]] == np.argsort(expected)[::-1].tolist()
    assert answer["usage"]["prompt_tokens"] == sum(len(tokens) for tokens, _ in pairs)
    refused = httpx.post(
        server.url + "/v1/rerank", json={"model": "bert", "query": "the word", "documents": documents}
    )
    assert refused.status_code == 400
    assert "cannot rank documents" in refused.text


def test_input_that_is_too_long_is_refused_with_both_numbers(api):
    with pytest.raises(openai.BadRequestError, match=r"257 tokens.*at most 256"):
        api.embeddings.create(model="bert", input=[[5] * 257])


@pytest.mark.parametrize("ask", ["completions", "chat"])
def test_embedding_model_asked_for_text_is_refused(api, ask):
    create = api.completions.create if ask == "completions" else api.chat.completions.create
    body = {"prompt": "Once"} if ask == "completions" else {"messages": [{"role": "user", "content": "Hi"}]}
    with pytest.raises(openai.BadRequestError, match="cannot generate text") as refused:
        create(model="bert", **body)
    assert refused.value.code == "cannot_generate"
    assert api.embeddings.create(model="bert", input="still there").data


def test_streams_continue_alongside_embeddings(api):
    plain = api.completions.create(model="stories", prompt="Once upon a time", max_tokens=60, temperature=0)
    collected: dict[str, object] = {}

    def write() -> None:
        with api.completions.create(
            model="stories", prompt="Once upon a time", max_tokens=60, temperature=0, stream=True
        ) as stream:
            collected["text"] = "".join(chunk.choices[0].text for chunk in stream if chunk.choices)

    alone = api.embeddings.create(model="stories", input="The little dog")
    writer = threading.Thread(target=write)
    writer.start()
    answer = api.embeddings.create(model="stories", input=["The little dog"] * 40)
    writer.join(60)
    assert collected["text"] == plain.choices[0].text
    for data in answer.data:
        assert close(data.embedding, np.float32(alone.data[0].embedding))


def test_vectors_are_normalized_as_the_engine_says():
    """The library and the server have one idea of length 1."""
    with engine.load(BERT, engine.ModelParameters(use_gpu=False, n_threads=1)) as model:
        (raw,) = filter(None, embed(model, [[5, 6, 7]], normalize=False))
        np.testing.assert_array_equal(model.embed([5, 6, 7]), normalized(raw.vector))
