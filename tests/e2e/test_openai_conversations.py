"""Conversations through the official Python client against a real socket."""

from __future__ import annotations

import openai
import pytest

from support.fakes.engine import TEXT, FakeEngine, make_app, serving, tokenizer


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


def test_conversations_are_created_updated_and_deleted(api):
    made = api.conversations.create(metadata={"topic": "cats"})
    assert (made.object, made.metadata) == ("conversation", {"topic": "cats"})
    assert api.conversations.retrieve(made.id) == made
    assert api.conversations.update(made.id, metadata={"topic": "dogs"}).metadata == {"topic": "dogs"}
    assert api.conversations.delete(made.id).deleted is True
    with pytest.raises(openai.NotFoundError) as caught:
        api.conversations.retrieve(made.id)
    assert caught.value.code == "conversation_not_found"
    with pytest.raises(openai.AuthenticationError):
        api.with_options(api_key="pumpkin").conversations.create()


def test_items_of_a_conversation_are_added_listed_and_deleted(api):
    first = {"type": "message", "role": "user", "content": "A cat"}
    made = api.conversations.create(items=[first])
    [second] = api.conversations.items.create(made.id, items=[{**first, "content": "A dog"}]).data
    assert (second.type, second.content[0].text) == ("message", "A dog")
    newest_first = list(
        api.conversations.items.list(made.id, limit=1, include=["reasoning.encrypted_content"])
    )
    assert [item.content[0].text for item in newest_first] == ["A dog", "A cat"]  # in pages
    oldest_first = api.conversations.items.list(made.id, order="asc", after=newest_first[1].id)
    assert [item.id for item in oldest_first] == [second.id]
    assert api.conversations.items.retrieve(second.id, conversation_id=made.id) == newest_first[0]
    assert api.conversations.items.delete(second.id, conversation_id=made.id).id == made.id
    with pytest.raises(openai.NotFoundError) as caught:
        api.conversations.items.retrieve(second.id, conversation_id=made.id)
    assert caught.value.code == "item_not_found"


def test_responses_in_a_conversation_add_what_came_and_what_was_generated(api, engine):
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
