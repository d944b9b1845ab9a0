"""The official Ollama client against a real socket: everything parses, errors included."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import datetime

import httpx
import ollama
import pydantic
import pytest

from support.api.http import user
from support.api.tools import CALLS, PARAMETERS, VALUE
from support.builders.vocabularies import models_dir
from support.fakes.engine import N_EMBD, TEXT, FakeEngine, make_app, serving
from support.fakes.hub import Repo, fake_hub, use_hub

OPTIONS = {"num_predict": 100, "temperature": 0.5, "stop": ["garden"]}
CUT = TEXT[: TEXT.index("garden")]


class Town(pydantic.BaseModel):
    name: str


def get_weather(city: str, days: int = 1) -> str:
    """The weather.

    Args:
        city: its name
        days: how many
    """
    return f"rain in {city} for {days}"


@pytest.fixture
def engine():
    return FakeEngine()


@pytest.fixture
def base(engine):
    with serving(make_app(engine, api_key=["sesame"])) as base:
        yield base


@pytest.fixture
def api(base):
    with connect(base) as api:
        yield api


def connect(base, key="sesame"):
    return ollama.Client(host=base, headers={"authorization": f"Bearer {key}"})


@pytest.fixture
def thinking():
    """A model that thinks and calls two tools."""
    engine = FakeEngine(f"<think>Hm.</think>\nLet me see.\n{CALLS['hermes']}", n_ctx=8192)
    template = models_dir() / "templates" / "Qwen-Qwen3-0.6B.jinja"
    with serving(make_app(engine, chat_template=template)) as base, ollama.Client(host=base) as api:
        yield api


def test_chat_returns_whole_and_streamed_answers(api, engine):
    whole = api.chat("stories", user("A cat"), options=OPTIONS)
    assert whole.message.role == "assistant"
    assert whole.message.content == CUT
    assert (whole.done, whole.done_reason) == (True, "stop")
    assert whole.prompt_eval_count == len(engine.seen[0].prompt)
    assert whole.eval_count > 0
    assert whole.total_duration > 0
    assert datetime.fromisoformat(whole.created_at).tzinfo is not None
    parts = list(api.chat("stories", user("A cat"), options=OPTIONS, stream=True))
    assert "".join(part.message.content for part in parts) == CUT
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert parts[-1].eval_count == whole.eval_count


def test_generate_returns_whole_and_streamed_text_and_a_context(api, engine):
    whole = api.generate("stories:latest", "Once", system="Be brief", options=ollama.Options(**OPTIONS))
    assert (whole.model, whole.response, whole.done_reason) == ("stories:latest", CUT, "stop")
    parts = list(api.generate("stories", "Once", raw=True, stream=True, options={"num_predict": 3}))
    assert "".join(part.response for part in parts) == " there was a"
    assert parts[-1].done_reason == "length"
    api.generate("stories", "And then?", context=whole.context)
    assert engine.seen[-1].prompt[: len(whole.context)] == list(whole.context)


def test_text_with_unusual_line_ends_is_read_as_one_line():
    text = " a\u2028b\x85c\u2029d\ve\f\x1cf\r\n"
    with serving(make_app(FakeEngine(text))) as base, ollama.Client(host=base) as api:
        assert api.chat("stories", user("x")).message.content == text
        parts = api.chat("stories", user("x"), stream=True)
        assert "".join(part.message.content for part in parts) == text


def test_format_json_and_schema_constrain_the_answer(api, engine):
    api.chat("stories", user("x"), format="json")
    api.chat("stories", user("x"), format=Town.model_json_schema())
    api.generate("stories", "x", format=Town.model_json_schema())
    kinds = [request.constraint.kind for request in engine.seen]
    assert kinds == ["json_object", "json_schema", "json_schema"]
    with pytest.raises(ollama.ResponseError, match=r"^format: ") as caught:
        api.chat("stories", user("x"), format={"type": "nothing"})
    assert caught.value.status_code == 400


def test_tools_are_called_and_answered(thinking):
    weather = {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}
    now = {"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}}
    whole = thinking.chat("stories", user("Hi"), tools=[weather, now], think=True)
    assert whole.message.thinking == "Hm."
    assert whole.message.content == "Let me see."
    assert [call.function.name for call in whole.message.tool_calls] == ["get_weather", "now"]
    assert whole.message.tool_calls[0].function.arguments == VALUE
    again = [
        *user("Hi"),
        whole.message,
        {"role": "tool", "tool_name": "get_weather", "content": "rain"},
        {"role": "tool", "tool_name": "now", "content": "12:00"},
    ]
    after = thinking.chat("stories", again, tools=[weather, now])
    assert after.done
    parts = list(thinking.chat("stories", user("Hi"), tools=[weather, now], think=True, stream=True))
    assert "".join(part.message.thinking or "" for part in parts) == "Hm."
    calls = [call for part in parts for call in part.message.tool_calls or ()]
    assert calls == list(whole.message.tool_calls)


def test_python_function_as_tool_is_called(thinking):
    reply = thinking.chat("stories", user("Hi"), tools=[get_weather])
    assert reply.message.tool_calls[0].function.name == "get_weather"


def test_generate_with_logprobs_returns_the_most_likely_tokens(api):
    reply = api.generate("stories", "x", logprobs=True, top_logprobs=2)
    assert reply.logprobs[0].token == " there"
    assert [entry.logprob for entry in reply.logprobs[0].top_logprobs] == [-0.5, -1.5]


def test_embed_returns_vectors_of_the_requested_size(api):
    reply = api.embed("stories", ["a cat", "a dog"], dimensions=4, truncate=True)
    assert [len(vector) for vector in reply.embeddings] == [4, 4]
    assert reply.prompt_eval_count > 0
    assert len(api.embed("stories", "a cat").embeddings) == 1
    assert len(api.embeddings("stories", "a cat").embedding) == N_EMBD


def test_list_show_and_ps_describe_the_model(api):
    (model,) = api.list().models
    assert model.model == "stories:latest"
    assert model.modified_at is not None
    assert model.details.family == "llama"
    shown = api.show("stories")
    assert shown.modelinfo["general.architecture"] == "llama"
    assert "completion" in shown.capabilities
    assert shown.template
    (loaded,) = api.ps().models
    assert (loaded.name, loaded.context_length) == ("stories:latest", 512)
    assert loaded.expires_at.year == 9999


def test_request_without_a_prompt_loads_or_unloads_the_model(api, engine):
    assert api.generate("stories").done_reason == "load"
    assert api.chat("stories").done_reason == "load"
    assert api.generate("stories", keep_alive=0).done_reason == "unload"
    assert engine.seen == []


def test_invalid_request_raises_the_clients_error(api, base, engine):
    for call in (api.chat, api.generate, api.show, api.embeddings):
        with pytest.raises(ollama.ResponseError) as caught:
            call("llama3.2")
        assert (caught.value.error, caught.value.status_code) == ("model 'llama3.2' not found", 404)
    with pytest.raises(ollama.ResponseError, match=r"^options\.temperature: ") as caught:
        api.chat("stories", user("x"), options={"temperature": -1})
    with pytest.raises(ollama.ResponseError, match="image input is not supported") as caught:
        api.generate("stories", "x", images=[b"\x89PNG"])
    assert caught.value.status_code == 400
    with pytest.raises(ollama.ResponseError, match="does not support thinking"):
        list(api.chat("stories", user("x"), think=True, stream=True))
    for refused in (
        lambda: api.copy("stories", "tales"),
        lambda: api.create("tales", from_="stories"),
        lambda: api.push("stories"),
    ):
        with pytest.raises(ollama.ResponseError, match="--model NAME=FILE") as caught:
            refused()
        assert caught.value.status_code == 501
    with connect(base, "pumpkin") as other, pytest.raises(ollama.ResponseError) as caught:
        other.list()
    assert caught.value.status_code == 401
    engine.n_ctx = 8
    with pytest.raises(ollama.ResponseError, match="tokens"):
        list(api.chat("stories", user("word " * 9), stream=True))


def test_pull_and_delete_with_allow_pull_succeed(api, tmp_path, monkeypatch):
    with pytest.raises(ollama.ResponseError, match="--allow-pull") as caught:
        api.pull("me/Tales-GGUF")
    assert caught.value.status_code == 403
    repos = {"me/Tales-GGUF": Repo({"tales-Q4_K_M.gguf": bytes(1 << 20)})}
    with fake_hub(repos) as hub, serving(make_app(allow_pull=True)) as base, ollama.Client(base) as permitted:
        use_hub(hub.url, tmp_path / "hub", monkeypatch)
        assert permitted.pull("hf.co/me/Tales-GGUF:Q4_K_M").status == "success"
        steps = list(permitted.pull("me/Tales-GGUF", stream=True))
        assert (steps[0].status, steps[-1].status) == ("pulling manifest", "success")
        assert {step.total for step in steps} == {None, 1 << 20}
        assert permitted.delete("hf.co/me/Tales-GGUF").status == "success"
        with pytest.raises(ollama.ResponseError, match="not found"):
            permitted.delete("hf.co/me/Tales-GGUF")


def test_error_in_the_middle_of_a_stream_is_raised(api, engine):
    engine.fail_after = 2
    texts = []
    with pytest.raises(ollama.ResponseError, match="internal error"):
        texts.extend(part.response for part in api.generate("stories", "x", stream=True))
    assert "".join(texts) == " there was"


def test_keep_alive_of_an_idle_stream_is_not_an_event():
    engine = FakeEngine(prefill_s=0.3)
    with serving(make_app(engine, keep_alive_s=0.05)) as base, ollama.Client(host=base) as api:
        parts = list(api.generate("stories", "x", stream=True))
    assert "".join(part.response for part in parts) == TEXT


def test_closed_stream_frees_the_engine():
    engine = FakeEngine(delay_s=0.01)
    with serving(make_app(engine)) as base, ollama.Client(host=base) as api:
        stream = api.generate("stories", "x", stream=True)
        assert next(stream).response == " there"
        stream.close()
        deadline = time.monotonic() + 10
        while not engine.left and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(engine.left) == 1


def test_async_client_answers_and_streams(base):
    async def ask() -> None:
        async with ollama.AsyncClient(host=base, headers={"authorization": "Bearer sesame"}) as api:
            assert (await api.chat("stories", user("A cat"))).message.content == TEXT
            stream = await api.chat("stories", user("A cat"), stream=True)
            assert "".join([part.message.content async for part in stream]) == TEXT
            vectors, models = await asyncio.gather(api.embed("stories", "a"), api.list())
            assert len(vectors.embeddings[0]) == N_EMBD
            assert len(models.models) == 1
            with pytest.raises(ollama.ResponseError):
                await api.show("nothing")

    asyncio.run(ask())


def test_client_needs_only_ollama_host(monkeypatch):
    with serving(make_app()) as base:
        monkeypatch.setenv("OLLAMA_HOST", base)
        with ollama.Client() as api:
            assert api.generate("stories", "x").response == TEXT
        assert httpx.head(base).status_code == 200
        answer = httpx.post(f"{base}/api/generate", json={"model": "stories", "prompt": "x"})
        assert [json.loads(line)["done"] for line in answer.content.splitlines()][-1] is True
