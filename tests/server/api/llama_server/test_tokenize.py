"""POST /tokenize, /detokenize, /apply-template."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.api.http import CHAT, client, error_of, user
from support.fakes.engine import FakeEngine, make_app, tokenizer
from support.quick import examples

pytestmark = pytest.mark.asyncio


async def test_tokenize_then_detokenize_gives_the_text_back():
    texts: list[str] = []

    @examples(60)
    @given(st.text(max_size=20))
    def gather(text):
        texts.append(text)

    gather()
    async with client() as http:
        for text in texts:
            tokens = (await http.post("/tokenize", json={"content": text, "parse_special": False})).json()[
                "tokens"
            ]
            assert tokens == tokenizer().encode(text, add_special=False)
            back = (await http.post("/detokenize", json={"tokens": tokens})).json()
            assert back == {"content": text, "prompt": text}


async def test_tokenize_follows_its_options():
    async with client() as http:

        async def ask(**body):
            return (await http.post("/tokenize", json=body)).json()["tokens"]

        bare = await ask(content="a<|end|>")
        assert await ask(content="a<|end|>", add_special=True) == [tokenizer().bos_id, *bare]
        assert len(await ask(content="a<|end|>", parse_special=False)) > len(bare)
        pieces = await ask(content="é<|end|>", with_pieces=True)
    assert [piece["piece"] for piece in pieces] == [[0xC3], [0xA9], "<|end|>"]
    assert [piece["id"] for piece in pieces][-1] == tokenizer().eot_id


async def test_tokenize_takes_texts_and_ids_in_one_list():
    async with client() as http:
        body = {"content": ["Once", 5, " upon"], "add_special": True}
        tokens = (await http.post("/tokenize", json=body)).json()["tokens"]
        assert (await http.post("/tokenize", json={"content": []})).json() == {"tokens": []}
    expected = [*tokenizer().encode("Once"), 5, *tokenizer().encode(" upon", add_special=False)]
    assert tokens == expected


async def test_detokenize_writes_special_tokens_out():
    async with client() as http:
        body = {"tokens": [tokenizer().bos_id, *tokenizer().encode("Hi", add_special=False)]}
        assert (await http.post("/detokenize", json=body)).json()["content"] == "<s>Hi"


async def test_tokenize_of_invalid_fields_is_refused():
    async with client() as http:
        for body in ({}, {"content": 5}, {"content": None}, {"content": [1.5]}, {"content": ["a", -1]}):
            assert error_of(await http.post("/tokenize", json=body), 400)["param"] == "content"
        error = error_of(await http.post("/tokenize", json={"content": [1] * (1 << 18) + ["a"]}), 400)
        assert error["param"] == "content"
        assert error_of(await http.post("/tokenize", json={"content": [2048]}), 400)["param"] == "content"
        for tokens in (None, "x", [-1], ["1"], [1.0], [True], [2048], [2**40]):
            assert error_of(await http.post("/detokenize", json={"tokens": tokens}), 400)["param"] == "tokens"
        assert (await http.post("/detokenize", json={"tokens": []})).json()["content"] == ""
        assert (await http.post("/detokenize", json={"tokens": [133]})).json()["content"] == "\ufffd"
        warned = (await http.post("/tokenize", json={"content": "a", "odd": 1})).json()
        assert warned["warnings"] == ["odd has no effect"]
        error_of(await http.post("/tokenize", json={"content": "a", "model": "x"}), 404)


async def test_apply_template_gives_the_prompt_of_a_chat():
    engine = FakeEngine()
    talk = [*user("A cat"), {"role": "assistant", "content": "Yes."}, *user("More")]
    async with client(engine) as http:
        prompt = (await http.post("/apply-template", json={"messages": talk})).json()["prompt"]
        await http.post(CHAT, json={"messages": talk})
        bare = (
            await http.post("/apply-template", json={"messages": talk, "add_generation_prompt": False})
        ).json()
    assert engine.seen[0].prompt == tokenizer().encode(prompt, add_special=False, parse_special=True)
    assert bare["prompt"] + "<|assistant|>" == prompt


async def test_remote_tokenizer_of_evaluation_clients_works():
    async with client(FakeEngine(n_ctx=512)) as http:
        info = (await http.get("/tokenizer_info")).json()
        assert (info["bos_token"], info["eos_token"]) == ("<s>", "</s>")
        assert (info["add_bos_token"], info["model_max_length"]) == (tokenizer().add_bos, 512)
        for fields, special in (({}, True), ({"add_special_tokens": False}, False)):
            reply = (await http.post("/tokenize", json={"prompt": "A cat", **fields})).json()
            assert reply["tokens"] == tokenizer().encode("A cat", add_special=special)
            assert (reply["count"], reply["max_model_len"]) == (len(reply["tokens"]), 512)
        assert (await http.get("/tokenizer_info", params={"model": "stories"})).json() == info
        back = (await http.post("/detokenize", json={"tokens": reply["tokens"]})).json()
        assert back["prompt"] == "A cat"
        assert "count" not in (await http.post("/tokenize", json={"content": "A cat"})).json()


async def test_tokenizer_info_of_several_models_needs_a_name():
    async with client(make_app({name: FakeEngine(name=name) for name in ("one", "two")})) as http:
        assert error_of(await http.get("/tokenizer_info"), 400)["param"] == "model"
        assert (await http.get("/tokenizer_info", params={"model": "two"})).status_code == 200


async def test_text_under_both_names_or_neither_is_refused():
    async with client() as http:
        error = error_of(await http.post("/tokenize", json={"prompt": "a", "content": "a"}), 400)
        assert error["param"] == "prompt"
        assert error_of(await http.post("/tokenize", json={}), 400)["param"] == "content"
