"""A real server, the bundled model, each generating route: prompts at the edges, one text however asked."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from support.api.routes import refusal
from support.api.wordings import WORDINGS, Answer, Wording
from support.server_process import ServerProcess

N_CTX = 96
# The bundled model has no tokens for filling in the middle.
NOT_INFILL = [wording for wording in WORDINGS if wording.path != "/infill"]
by_path = pytest.mark.parametrize("wording", NOT_INFILL, ids=lambda wording: wording.path)
# Each has a beginning of its own, so that none finds what another left in the cache.
STORIES = {
    w.path: f"{name} had a little dog."
    for w, name in zip(NOT_INFILL, ("Tom", "Ann", "Sue", "Ben", "Max", "Kim", "Joe"), strict=True)
}
NEAR_TIE = 1e-2  # in log-probability: two right computations may differ where the two best are so close


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = str(tmp_path_factory.mktemp("slots"))
    options = (
        "--threads",
        "1",
        "--use-gpu",
        "false",
        "--context-size",
        str(N_CTX),
        "--slot-save-path",
        folder,
    )
    with ServerProcess(*options) as server:
        with httpx.Client(base_url=server.url, timeout=60) as http_client:
            yield http_client
        assert server.end() == 0


def ask(http: httpx.Client, wording: Wording, text: str, limit: int | None = None, **fields: Any) -> Answer:
    body = wording.body(text, limit, temperature=0, **fields)
    return wording.read(http.post(wording.path, json=body))


@by_path
def test_prompt_that_fills_the_context_gets_one_token_or_400(wording: Wording, http: httpx.Client) -> None:
    """One token less than it holds: one is generated. As many, or more: refused with both numbers."""
    least = ask(http, wording, "Once a", 1).usage.prompt
    fits = "Once" + " a" * (N_CTX - 1 - least + 1)
    reply = ask(http, wording, fits)
    assert reply.usage.prompt == N_CTX - 1
    assert reply.usage.completion == 1
    assert reply.finish == "length"
    # Anthropic's clients look for words that name the longest prompt, which leaves room for a token.
    limit = f"> {N_CTX - 1} maximum" if wording.path == "/v1/messages" else str(N_CTX)
    for more in (1, 2):
        for stream in (False, True):
            body = wording.body(fits + " a" * more, stream=stream)
            message = refusal(http.post(wording.path, json=body), wording.path)["message"]
            assert limit in message
            assert str(N_CTX - 1 + more) in message


EMPTY = ["", " ", "\n\t \r\n", "\u3000", "\u200b", "<s>", "</s>", "<s></s><s>", "<|user|>", "<|end|>" * 9]


@by_path
def test_prompt_without_content_is_answered(wording: Wording, http: httpx.Client) -> None:
    """An answer, for there is always something that a text begins with, or a refusal that says why."""
    answered = 0
    for text in EMPTY:
        response = http.post(wording.path, json=wording.body(text, 2, temperature=0))
        if not text and not wording.generates_for_nothing:
            assert response.json()["done_reason"] == "load"
        elif response.status_code == 200:
            reply = wording.read(response)
            assert reply.usage.prompt >= 1
            assert reply.usage.completion in (1, 2)
            answered += 1
        else:
            refusal(response, wording.path)
    assert answered >= len(EMPTY) - 1


def steady(http: httpx.Client, wording: Wording) -> int:
    """How many tokens are generated before the two best are nearly as good as each other."""
    text, body = STORIES[wording.path], {"max_tokens": 40, "temperature": 0, "cache_prompt": False}
    if wording.path in ("/v1/completions", "/completion"):
        path, body = "/v1/completions", {**body, "prompt": text, "logprobs": 2}
    else:
        messages = [{"role": "user", "content": text}]
        path, body = (
            "/v1/chat/completions",
            {**body, "messages": messages, "logprobs": True, "top_logprobs": 2},
        )
    response = http.post(path, json=body).json()
    logprobs = response["choices"][0]["logprobs"]
    if "content" in logprobs:
        pairs = [[other["logprob"] for other in token["top_logprobs"]] for token in logprobs["content"]]
    else:
        pairs = [list(top.values()) for top in logprobs["top_logprobs"]]
    near = [abs(pair[0] - pair[-1]) < NEAR_TIE for pair in pairs]
    n = near.index(True) if True in near else len(near)
    assert n >= 8
    return n


@by_path
def test_text_is_the_same_streamed_batched_and_after_a_restore(wording: Wording, http: httpx.Client) -> None:
    story, n = STORIES[wording.path], steady(http, wording)
    alone = ask(http, wording, story, n, cache_prompt=False, id_slot=0)
    assert alone.usage.cached == 0
    assert alone.usage.completion == n
    streamed = ask(http, wording, story, n, stream=True)
    assert (streamed.text, streamed.finish) == (alone.text, alone.finish)
    others = [("Once upon a time", 30), ("One day,", 25), ("The", 40)]
    with ThreadPoolExecutor(6) as pool:
        neighbours = [pool.submit(ask, http, wording, text, n) for text, n in others]
        mine = [pool.submit(ask, http, wording, story, n, stream=stream) for stream in (True, False, True)]
        assert [future.result().text for future in mine] == [alone.text] * 3
        assert all(future.result().text for future in neighbours)

    ask(http, wording, story, n, id_slot=0)
    name = {"filename": wording.path.strip("/").replace("/", "-")}
    assert http.post("/slots/0?action=save", json=name).json()["n_saved"] > 0
    assert http.post("/slots/0?action=erase").json()["n_erased"] > 0
    assert http.post("/slots/0?action=restore", json=name).json()["n_restored"] > 0
    restored = ask(http, wording, story, n)
    assert restored.usage.cached == restored.usage.prompt - 1
    assert restored.text == alone.text
