"""Responses and conversations through the official Python client against a real socket."""

from __future__ import annotations

import time

import openai
import pydantic
import pytest

from support.fakes.engine import TEXT, FakeEngine, make_app, serving, tokenizer

TOOL = {
    "type": "function",
    "name": "weather",
    "description": "of a town",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"town": {"type": "string"}},
        "required": ["town"],
        "additionalProperties": False,
    },
}
CALL = '{"tool_calls": [{"name": "weather", "arguments": {"town": "Ulm"}}]}'


class Town(pydantic.BaseModel):
    name: str
    people: int


@pytest.fixture
def engine():
    return FakeEngine()


@pytest.fixture
def api(engine):
    with (
        serving(make_app(engine, api_key=["sesame"])) as base,
        openai.OpenAI(base_url=base + "/v1", api_key="sesame", max_retries=0) as api,
    ):
        yield api


def test_response_can_be_retrieved_and_continued(api, engine):
    reply = api.responses.create(
        model="stories",
        input="A cat",
        instructions="Be brief",
        include=["message.output_text.logprobs"],
        top_logprobs=2,
        metadata={"a": "b"},
    )
    assert reply.output_text == TEXT
    assert reply.output[0].content[0].logprobs[0].top_logprobs[1].logprob == -1.5
    assert reply.usage.total_tokens == reply.usage.input_tokens + reply.usage.output_tokens
    assert reply.metadata == {"a": "b"}
    assert api.responses.retrieve(reply.id) == reply
    after = api.responses.create(model="stories", input="More", previous_response_id=reply.id)
    assert after.previous_response_id == reply.id
    assert tokenizer().decode(engine.seen[-1].prompt) == f"A cat{TEXT.strip()}More"
    items = list(api.responses.input_items.list(after.id, limit=1))  # in pages, newest first
    assert [item.type for item in items] == ["message"] * 3
    assert items[1].id == reply.output[0].id
    api.responses.delete(reply.id)
    with pytest.raises(openai.NotFoundError) as caught:
        api.responses.retrieve(reply.id)
    assert caught.value.code == "response_not_found"


def test_input_tokens_match_the_prompt(api, engine):
    counted = api.responses.input_tokens.count(model="stories", input="A cat")
    api.responses.create(model="stories", input="A cat")
    assert counted.input_tokens == len(engine.seen[0].prompt)


def test_stream_adds_up_to_the_response(api):
    events = list(api.responses.create(model="stories", input="A cat", stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].response.output_text == TEXT
    with api.responses.stream(model="stories", input="A cat") as stream:
        snapshots = [event.snapshot for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert snapshots[-1] == final.output_text == TEXT


def test_stream_cut_by_the_limit_is_incomplete(api):
    with api.responses.stream(model="stories", input="A cat", max_output_tokens=3) as stream:
        last = list(stream)[-1]
    assert last.type == "response.incomplete"
    assert last.response.incomplete_details.reason == "max_output_tokens"
    assert last.response.output_text == " there was a"


def test_tool_call_and_result_round_trip(api, engine):
    engine.reply = tokenizer().encode(CALL, add_special=False, parse_special=False)
    body = {"model": "stories", "tools": [TOOL]}
    with api.responses.stream(input="Weather?", **body) as stream:
        snapshots = [e.snapshot for e in stream if e.type == "response.function_call_arguments.delta"]
        streamed = stream.get_final_response()
    assert snapshots[-1] == '{"town": "Ulm"}'
    assert streamed.output[0].parsed_arguments == {"town": "Ulm"}
    reply = api.responses.create(input="Weather?", **body)
    (call,) = reply.output
    assert (call.type, call.name, call.arguments) == ("function_call", "weather", '{"town": "Ulm"}')
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    api.responses.create(input=[result], previous_response_id=reply.id, **body)
    prompt = tokenizer().decode(engine.seen[-1].prompt)
    # Without a memory of the server, the client sends back what it got.
    api.responses.create(input=[{"role": "user", "content": "Weather?"}, *reply.output, result], **body)
    assert tokenizer().decode(engine.seen[-1].prompt) == prompt
    assert prompt.index("Ulm") < prompt.index("sunny")


def test_background_responses_are_polled_and_cancelled(api, engine):
    engine.gate.clear()
    queued = api.responses.create(model="stories", input="A cat", background=True)
    assert (queued.status, queued.background, queued.output) == ("queued", True, [])
    assert api.responses.retrieve(queued.id).status == "queued"
    engine.gate.set()
    while (polled := api.responses.retrieve(queued.id)).status in ("queued", "in_progress"):
        time.sleep(0.01)
    assert (polled.status, polled.output_text) == ("completed", TEXT)
    assert api.responses.cancel(queued.id) == polled  # too late: it stays as it is
    after = api.responses.create(model="stories", input="More", previous_response_id=queued.id)
    assert after.status == "completed"
    engine.gate.clear()
    other = api.responses.create(model="stories", input="A dog", background=True)
    assert api.responses.cancel(other.id).status == "cancelled"
    assert api.responses.retrieve(other.id).status == api.responses.cancel(other.id).status == "cancelled"


def test_stream_of_a_background_response_can_be_left_and_resumed(api, engine):
    events = []
    with api.responses.create(model="stories", input="A cat", background=True, stream=True) as stream:
        for event in stream:
            events.append(event)
            if event.type == "response.output_text.delta":
                break
    assert [event.type for event in events[:3]] == [
        "response.created",
        "response.queued",
        "response.in_progress",
    ]
    id = events[0].response.id
    events += api.responses.retrieve(id, stream=True, starting_after=events[-1].sequence_number)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == TEXT
    assert events[-1].type == "response.completed"
    assert events[-1].response == api.responses.retrieve(id)
    with api.responses.stream(response_id=id, starting_after=3) as stream:  # the client's own helper
        assert [event.sequence_number for event in stream] == list(range(4, len(events)))


def test_invalid_request_raises_the_clients_error(api, engine):
    plain = api.responses.create(model="stories", input="A cat")
    with pytest.raises(openai.BadRequestError) as caught:
        api.responses.retrieve(plain.id, stream=True)
    assert (caught.value.param, caught.value.code) == ("stream", "unsupported_value")
    with pytest.raises(openai.NotFoundError) as caught:
        api.responses.create(model="gpt", input="A cat")
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError) as caught:
        api.responses.create(model="stories", input="A cat", previous_response_id="resp_x")
    assert caught.value.param == "previous_response_id"
    with pytest.raises(openai.AuthenticationError):
        api.with_options(api_key="pumpkin").responses.create(model="stories", input="A cat")
    with pytest.raises(openai.NotFoundError):
        api.responses.cancel("resp_x")
    engine.fail_after = 2
    events = list(api.responses.create(model="stories", input="A cat", stream=True))
    assert [event.type for event in events[-2:]] == ["error", "response.failed"]
    assert events[-2].code == "internal_error"
    assert events[-1].response.error.code == "server_error"


def test_text_format_constrains_the_answer(api, engine):
    engine.reply = tokenizer().encode('{"name": "Ulm", "people": 5}', add_special=False, parse_special=False)
    reply = api.responses.parse(model="stories", input="Which town?", text_format=Town)
    assert reply.output_parsed == Town(name="Ulm", people=5)
    with api.responses.stream(model="stories", input="Which town?", text_format=Town) as stream:
        assert stream.get_final_response().output_parsed == reply.output_parsed
    for request in engine.seen:
        assert request.constraint.kind == "json_schema"
        assert '"people"' in request.constraint.text


def test_required_tool_is_called(api, engine):
    engine.reply = tokenizer().encode(CALL, add_special=False, parse_special=False)
    for choice in ("required", {"type": "function", "name": "weather"}):
        reply = api.responses.create(model="stories", input="Weather?", tools=[TOOL], tool_choice=choice)
        assert reply.output[0].name == "weather"
        assert engine.seen[-1].constraint is not None


def test_schema_that_cannot_be_enforced_is_refused_unless_lenient(api):
    schema = {"type": "object", "properties": {"a": {"type": "array", "contains": {"type": "string"}}}}
    format = {"type": "json_schema", "name": "thing", "schema": schema, "strict": True}
    with pytest.raises(openai.BadRequestError) as caught:
        api.responses.create(model="stories", input="A cat", text={"format": format})
    assert caught.value.param == "text.format.schema"
    reply = api.responses.create(model="stories", input="A cat", text={"format": {**format, "strict": False}})
    assert any(text.startswith("text.format.schema: not enforced") for text in reply.warnings)


def test_conversations_are_created_updated_and_deleted(api):
    conversation = api.conversations.create(metadata={"topic": "cats"})
    assert (conversation.object, conversation.metadata) == ("conversation", {"topic": "cats"})
    assert api.conversations.retrieve(conversation.id) == conversation
    assert api.conversations.update(conversation.id, metadata={"topic": "dogs"}).metadata == {"topic": "dogs"}
    assert api.conversations.delete(conversation.id).deleted is True
    with pytest.raises(openai.NotFoundError) as caught:
        api.conversations.retrieve(conversation.id)
    assert caught.value.code == "conversation_not_found"
    with pytest.raises(openai.AuthenticationError):
        api.with_options(api_key="pumpkin").conversations.create()


def test_items_of_a_conversation_are_added_listed_and_deleted(api):
    first = {"type": "message", "role": "user", "content": "A cat"}
    conversation = api.conversations.create(items=[first])
    [second] = api.conversations.items.create(conversation.id, items=[{**first, "content": "A dog"}]).data
    assert (second.type, second.content[0].text) == ("message", "A dog")
    newest_first = list(
        api.conversations.items.list(conversation.id, limit=1, include=["reasoning.encrypted_content"])
    )
    assert [item.content[0].text for item in newest_first] == ["A dog", "A cat"]  # in pages
    oldest_first = api.conversations.items.list(conversation.id, order="asc", after=newest_first[1].id)
    assert [item.id for item in oldest_first] == [second.id]
    assert api.conversations.items.retrieve(second.id, conversation_id=conversation.id) == newest_first[0]
    assert api.conversations.items.delete(second.id, conversation_id=conversation.id).id == conversation.id
    with pytest.raises(openai.NotFoundError) as caught:
        api.conversations.items.retrieve(second.id, conversation_id=conversation.id)
    assert caught.value.code == "item_not_found"


def test_responses_in_a_conversation_add_their_input_and_output(api, engine):
    conversation = api.conversations.create()
    whole = api.responses.create(model="stories", input="A cat", conversation=conversation.id)
    assert whole.conversation.id == conversation.id
    with api.responses.stream(model="stories", input="More", conversation={"id": conversation.id}) as stream:
        assert stream.get_final_response().conversation.id == conversation.id
    assert tokenizer().decode(engine.seen[-1].prompt) == f"A cat{TEXT.strip()}More"
    items = list(api.conversations.items.list(conversation.id, order="asc"))
    assert [item.content[0].text for item in items] == ["A cat", TEXT, "More", TEXT]
    assert items[1].id == whole.output[0].id
    with pytest.raises(openai.NotFoundError) as caught:
        api.responses.create(model="stories", input="A cat", conversation="conv_x")
    assert caught.value.param == "conversation"
