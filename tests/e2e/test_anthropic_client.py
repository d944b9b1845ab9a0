"""The official Anthropic client against a real socket: everything parses, errors included."""

from __future__ import annotations

import anthropic
import pydantic
import pytest

from support.api.http import user
from support.fakes.engine import TEXT, FakeEngine, ids, make_app, serving, tokenizer

TOOL = {
    "name": "weather",
    "description": "of a town",
    "input_schema": {
        "type": "object",
        "properties": {"town": {"type": "string"}},
        "required": ["town"],
    },
}
CALL = '{"tool_calls": [{"name": "weather", "arguments": {"town": "Ulm"}}]}'


@pytest.fixture
def engine():
    return FakeEngine()


@pytest.fixture
def api(engine):
    with serving(make_app(engine, api_key=["sesame"])) as base, connect(base) as api:
        yield api


def connect(base, key="sesame", retries=0):
    return anthropic.Anthropic(base_url=base, api_key=key, max_retries=retries)


def ask(api, text="A cat", **body):
    return api.messages.create(**{"model": "stories", "max_tokens": 200, "messages": user(text), **body})


def test_create_returns_text_and_usage(api, engine):
    reply = ask(api, system="Be brief", stop_sequences=["garden"], metadata={"user_id": "me"})
    assert reply.content[0].text == TEXT[: TEXT.index("garden")]
    assert (reply.stop_reason, reply.stop_sequence) == ("stop_sequence", "garden")
    assert reply.usage.input_tokens == len(engine.seen[0].prompt)
    assert reply.usage.cache_read_input_tokens == 0
    assert reply.usage.output_tokens_details.thinking_tokens == 0
    assert reply._request_id


def test_stream_adds_up_to_the_text(api):
    kinds = [event.type for event in ask(api, stream=True)]
    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
    with api.messages.stream(model="stories", max_tokens=200, messages=user("A cat")) as stream:
        assert "".join(stream.text_stream) == TEXT
        final = stream.get_final_message()
    assert final.content[0].text == TEXT
    assert final.stop_reason == "end_turn"
    assert final.usage.output_tokens == len(ids(TEXT)) + 1


def test_prefilled_assistant_message_is_continued(api, engine):
    ask(api, messages=[*user("A cat"), {"role": "assistant", "content": "Once upon"}])
    assert tokenizer().decode(engine.seen[0].prompt) == "A catOnce upon"


def test_tool_call_and_result_round_trip(api, engine):
    engine.reply = ids(CALL)
    with api.messages.stream(
        model="stories", max_tokens=200, messages=user("Weather?"), tools=[TOOL]
    ) as stream:
        pieces = [event.partial_json for event in stream if event.type == "input_json"]
        streamed = stream.get_final_message()
    assert "".join(pieces) == '{"town": "Ulm"}'
    reply = ask(api, "Weather?", tools=[TOOL])
    for message in (streamed, reply):
        assert message.stop_reason == "tool_use"
        (use,) = message.content
        assert (use.type, use.name, use.input) == ("tool_use", "weather", {"town": "Ulm"})
    result = {"type": "tool_result", "tool_use_id": reply.content[0].id, "content": "sunny"}
    turns = [{"role": "assistant", "content": reply.content}, {"role": "user", "content": [result]}]
    ask(api, messages=[*user("Weather?"), *turns], tools=[TOOL])
    prompt = tokenizer().decode(engine.seen[-1].prompt)
    assert prompt.index("Weather?") < prompt.rindex("Ulm") < prompt.index("sunny")


def test_count_tokens_matches_the_prompt(api, engine):
    counted = api.messages.count_tokens(model="stories", messages=user("A cat"), tools=[TOOL])
    ask(api, tools=[TOOL])
    assert counted.input_tokens == len(engine.seen[0].prompt)


def test_models_are_listed_and_retrieved(api):
    (model,) = api.models.list()
    assert (model.id, model.type, model.display_name) == ("stories", "model", "stories")
    assert model.created_at.year >= 2024
    assert api.models.retrieve("stories") == model
    assert list(api.models.list(limit=1, after_id="stories")) == []
    with pytest.raises(anthropic.NotFoundError):
        api.models.retrieve("gpt")


def test_invalid_request_raises_the_clients_error(api, engine):
    with pytest.raises(anthropic.BadRequestError) as caught:
        ask(api, max_tokens=0)
    assert caught.value.type == "invalid_request_error"
    assert "max_tokens" in str(caught.value)
    assert caught.value.request_id
    with pytest.raises(anthropic.NotFoundError) as missing:
        ask(api, model="gpt")
    assert missing.value.type == "not_found_error"
    engine.n_ctx = 8
    with pytest.raises(anthropic.BadRequestError, match=r"prompt is too long: [0-9]+ tokens > 7 maximum"):
        ask(api, "word " * 9, stream=True)


def test_wrong_key_raises_authentication_error(engine):
    with (
        serving(make_app(engine, api_key=["sesame"])) as base,
        connect(base, "pumpkin") as api,
        pytest.raises(anthropic.AuthenticationError),
    ):
        ask(api)


def test_error_in_the_middle_of_a_stream_is_raised(api, engine):
    engine.fail_after = 2
    texts = []
    with pytest.raises(anthropic.APIStatusError) as caught:
        texts.extend(e.delta.text for e in ask(api, stream=True) if e.type == "content_block_delta")
    assert "".join(texts) == " there was"
    assert caught.value.type == "api_error"


def test_pings_are_not_events():
    with serving(make_app(FakeEngine(prefill_s=0.3), keep_alive_s=0.05)) as base, connect(base) as api:
        assert [event.type for event in ask(api, stream=True)].count("message_start") == 1


def test_output_format_constrains_the_answer(api, engine):
    class Town(pydantic.BaseModel):
        name: str
        people: int

    engine.reply = ids('{"name": "Ulm", "people": 5}')
    reply = api.messages.parse(
        model="stories", max_tokens=200, messages=user("Which town?"), output_format=Town
    )
    assert reply.parsed_output == Town(name="Ulm", people=5)
    assert engine.seen[-1].constraint.kind == "json_schema"


def test_required_tool_is_called(api, engine):
    engine.reply = ids(CALL)
    for choice in ({"type": "any"}, {"type": "tool", "name": "weather", "disable_parallel_tool_use": True}):
        reply = ask(api, "Weather?", tools=[TOOL], tool_choice=choice)
        assert reply.content[0].name == "weather"
        assert engine.seen[-1].constraint is not None
