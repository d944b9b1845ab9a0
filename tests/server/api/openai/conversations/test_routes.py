"""/v1/conversations and the items in them."""

from __future__ import annotations

import pytest

from support.api.http import client, error_of
from support.fakes.engine import FakeEngine, make_app

pytestmark = pytest.mark.asyncio
PATH = "/v1/conversations"
USER = {"role": "user", "content": "Hello"}


async def test_conversation_is_created_updated_and_deleted():
    async with client() as http:
        conversation = (await http.post(PATH, json={"metadata": {"a": "b"}, "frob": 1})).json()
        assert (conversation["object"], conversation["metadata"]) == ("conversation", {"a": "b"})
        assert conversation["warnings"] == ["frob has no effect"]
        path = f"{PATH}/{conversation['id']}"
        assert (await http.get(path)).json() == {k: v for k, v in conversation.items() if k != "warnings"}
        assert (await http.post(path, json={"metadata": {"c": "d"}})).json()["metadata"] == {"c": "d"}
        assert (await http.post(path, json={"metadata": None})).json()["metadata"] == {}
        assert error_of(await http.post(path, json={}), 400)["param"] == "metadata"
        deletion = {"id": conversation["id"], "object": "conversation.deleted", "deleted": True}
        assert (await http.delete(path)).json() == deletion
        for response in (await http.get(path), await http.delete(path), await http.get(f"{path}/items")):
            assert error_of(response, 404)["code"] == "conversation_not_found"


async def test_items_are_added_listed_retrieved_and_deleted():
    async with client() as http:
        conversation = (await http.post(PATH, json={"items": [USER]})).json()
        path = f"{PATH}/{conversation['id']}/items"
        call = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
        output = {"type": "function_call_output", "call_id": "c1", "output": "5"}
        added = (await http.post(path, json={"items": [call]})).json()
        assert [item["type"] for item in added["data"]] == ["function_call"]
        assert added["first_id"] == added["last_id"] == added["data"][0]["id"]
        assert (await http.post(path, json={"items": [output]})).status_code == 200  # of a call before it
        listed = (await http.get(path, params={"limit": 2})).json()
        assert [item["type"] for item in listed["data"]] == ["function_call_output", "function_call"]
        assert listed["has_more"] is True
        rest = (await http.get(path, params={"after": listed["last_id"]})).json()
        assert [item["content"][0]["text"] for item in rest["data"]] == ["Hello"]
        item = f"{path}/{listed['last_id']}"
        assert (await http.get(item)).json() == added["data"][0]
        assert (await http.delete(item)).json()["id"] == conversation["id"]
        for response in (await http.get(item), await http.delete(item)):
            assert error_of(response, 404)["code"] == "item_not_found"
        assert len((await http.get(path)).json()["data"]) == 2


@pytest.mark.parametrize(
    ("items", "param"),
    [
        (None, "items"),
        ("Hello", "items"),
        (["Hello"], "items[0]"),
        ([{"role": "frog", "content": "x"}], "items[0].role"),
        ([{"type": "frog"}], "items[0].type"),
        ([USER] * 5000, "items"),
        ([{"type": "function_call_output", "call_id": "x", "output": "y"}], "items[0].call_id"),
        ([{**USER, "id": "msg_1"}, {**USER, "id": "msg_1"}], "items"),
        ([{**USER, "content": "x" * 4000}], "items"),
    ],
)
async def test_invalid_items_are_refused_by_name_and_change_nothing(items, param):
    async with client(make_app(FakeEngine(), responses_max_bytes=3000)) as http:
        conversation = (await http.post(PATH, json={"items": [USER]})).json()
        path = f"{PATH}/{conversation['id']}/items"
        error = error_of(await http.post(path, json={"items": items}), 400)
        assert error["param"] == param
        assert len((await http.get(path)).json()["data"]) == 1


async def test_conversations_with_storage_off_are_refused():
    async with client(make_app(FakeEngine(), max_stored_responses=0)) as http:
        assert error_of(await http.post(PATH, json={}), 400)["code"] == "conversations_not_stored"


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": 101}, {"order": "up"}, {"after": "msg_x"}])
async def test_invalid_pages_are_refused_by_name(query):
    async with client() as http:
        conversation = (await http.post(PATH, json={})).json()
        response = await http.get(f"{PATH}/{conversation['id']}/items", params=query)
    assert error_of(response, 400)["param"] == next(iter(query))
