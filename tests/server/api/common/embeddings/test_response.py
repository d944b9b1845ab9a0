"""Which of the two formats answers a request."""

from __future__ import annotations

import pytest

from support.api.embeddings import V1
from support.api.http import client

pytestmark = pytest.mark.asyncio


async def test_content_on_the_openai_route_is_answered_as_llama_server_does():
    async with client() as http:
        assert isinstance((await http.post(V1, json={"content": "a"})).json(), list)
        answer = (await http.post(V1, json={"input": "a", "content": "b", "user": "me"})).json()
        assert answer["warnings"] == ["user has no effect", "content has no effect: input is set"]
