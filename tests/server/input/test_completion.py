"""From raw prompts to tokens: what fits, and what does not."""

from __future__ import annotations

import pytest

from support.api.http import COMPLETIONS, client, error_of
from support.fakes.engine import FakeEngine, tokenizer

pytestmark = pytest.mark.asyncio


async def test_empty_prompts_begin_with_the_first_token():
    engine = FakeEngine()
    async with client(engine) as http:
        assert (await http.post(COMPLETIONS, json={"prompt": ""})).status_code == 200
        assert (await http.post(COMPLETIONS, json={"prompt": "<s>"})).status_code == 200
        assert (await http.post(COMPLETIONS, json={"prompt": "  \n"})).status_code == 200
        error_of(await http.post(COMPLETIONS, json={"prompt": []}), 400)
        error_of(await http.post(COMPLETIONS, json={"prompt": None}), 400)
    assert engine.seen[0].prompt == [tokenizer().bos_id]


async def test_a_prompt_must_leave_room_for_one_token():
    async with client(FakeEngine(n_ctx=16)) as http:
        fits = await http.post(COMPLETIONS, json={"prompt": [9] * 15})
        for n in (16, 17, 5000):
            error = error_of(await http.post(COMPLETIONS, json={"prompt": [9] * n}), 400)
            assert error["code"] == "context_length_exceeded"
            assert f"{n} tokens" in error["message"]
            assert "16" in error["message"]
            assert (error["n_prompt_tokens"], error["n_ctx"]) == (n, 16)
            assert error["type"] == "exceed_context_size_error"
    assert fits.status_code == 200


async def test_text_that_cannot_fit_is_not_tokenized():
    engine = FakeEngine(n_ctx=16)

    class Untouchable:
        def __getattr__(self, name):
            assert name != "encode", "a text beyond all bounds was tokenised"
            return getattr(tokenizer(), name)

    engine.tokenizer = Untouchable()
    async with client(engine) as http:
        error = error_of(await http.post(COMPLETIONS, json={"prompt": "word " * 100_000}), 400)
    assert error["code"] == "context_length_exceeded"
    assert "16" in error["message"]


@pytest.mark.parametrize(
    ("n_ctx_train", "advice"),
    [
        (16, "shorten the prompt"),
        (512, "shorten the prompt or raise --context-size (the model was trained for 512)"),
    ],
)
@pytest.mark.parametrize("prompt", [[9] * 20, "word " * 100_000], ids=["tokens", "text"])
async def test_advice_for_an_overlong_prompt_works(prompt, n_ctx_train, advice):
    engine = FakeEngine(n_ctx=16)
    engine.info["n_ctx_train"] = n_ctx_train
    async with client(engine) as http:
        error = error_of(await http.post(COMPLETIONS, json={"prompt": prompt}), 400)
    assert error["message"].endswith(f"; {advice}")
