"""The official Python client against a real socket: everything parses, errors included."""

from __future__ import annotations

import openai
import pytest

from support.api.http import user
from support.fakes.engine import TEXT, FakeEngine, make_app, serving


@pytest.fixture
def engine():
    return FakeEngine()


@pytest.fixture
def api(engine):
    with serving(make_app(engine, api_key=["sesame"])) as base, connect(base) as api:
        yield api


def connect(base: str, key: str = "sesame", retries: int = 0) -> openai.OpenAI:
    return openai.OpenAI(base_url=base + "/v1", api_key=key, max_retries=retries)


def test_completions_answer_and_stream(api):
    whole = api.completions.create(model="stories", prompt="Once", logprobs=2, seed=5, n=2)
    assert [choice.text for choice in whole.choices] == [TEXT, TEXT]
    assert whole.choices[0].logprobs.tokens[0] == " there"
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    assert whole.timings["predicted_n"] == whole.usage.completion_tokens
    chunks = list(
        api.completions.create(
            model="stories", prompt="Once", stream=True, stream_options={"include_usage": True}, logprobs=0
        )
    )
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == TEXT
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens == 0


def test_chat_answers_and_streams(api):
    whole = api.chat.completions.create(
        model="stories", messages=user("A cat"), logprobs=True, top_logprobs=3, extra_body={"top_k": 5}
    )
    assert whole.choices[0].message.content == TEXT
    assert whole.choices[0].logprobs.content[0].top_logprobs[0].logprob == -0.5
    chunks = list(
        api.chat.completions.create(
            model="stories", messages=user("A cat"), stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == TEXT
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_stream_accumulated_by_the_client_equals_the_answer(api):
    with api.chat.completions.stream(model="stories", messages=user("A cat")) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert kinds.count("content.delta") > 5
    assert final.choices[0].message.content == TEXT


def test_models_are_listed_and_retrieved(api):
    assert [model.id for model in api.models.list()] == ["stories"]
    assert api.models.retrieve("stories").owned_by == "ggserve"
    with pytest.raises(openai.NotFoundError) as caught:
        api.models.retrieve("some/where")
    assert caught.value.code == "model_not_found"


def test_invalid_request_raises_the_clients_error(api, engine):
    with pytest.raises(openai.BadRequestError) as caught:
        api.completions.create(model="stories", prompt="Once", temperature=-1)
    assert (caught.value.param, caught.value.code) == ("temperature", "invalid_value")
    with pytest.raises(openai.NotFoundError):
        api.completions.create(model="gpt", prompt="Once")
    engine.n_ctx = 8
    with pytest.raises(openai.BadRequestError) as caught:
        api.chat.completions.create(model="stories", messages=user("word " * 9), stream=True)
    assert caught.value.code == "context_length_exceeded"


def test_wrong_key_raises_authentication_error(engine):
    with (
        serving(make_app(engine, api_key=["sesame"])) as base,
        connect(base, "pumpkin") as api,
        pytest.raises(openai.AuthenticationError),
    ):
        api.completions.create(model="stories", prompt="Once")


def test_error_in_the_middle_of_a_stream_is_raised(api, engine):
    engine.fail_after = 2
    stream = api.chat.completions.create(model="stories", messages=user("A cat"), stream=True)
    texts = []
    with pytest.raises(openai.APIError) as caught:
        texts.extend(chunk.choices[0].delta.content or "" for chunk in stream)
    assert "".join(texts) == " there was"
    assert caught.value.code == "internal_error"


def test_keep_alive_comments_are_not_events():
    engine = FakeEngine(prefill_s=0.3)
    with serving(make_app(engine, keep_alive_s=0.05)) as base, connect(base) as api:
        chunks = list(api.completions.create(model="stories", prompt="Once", stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == TEXT
