"""Fields that are unknown or have no effect are named in the response."""

from __future__ import annotations

import pytest

from support.api.http import COMPLETIONS, client, events

pytestmark = pytest.mark.asyncio


async def test_unknown_and_idle_fields_are_named():
    body = {
        "prompt": "Once",
        "user": "me",
        "topp": 1,
        "metadata": {},
        "store": False,
        "suffix": "",
        "temperature": 0,
        "top_p": 0.5,
        "stop": ["", "zz"],
        "stream_options": {"include_usage": True},
        "max_tokens": 100_000,
    }
    async with client() as http:
        whole = (await http.post(COMPLETIONS, json=body)).json()
        stream = events((await http.post(COMPLETIONS, json={**body, "stream": True})).text)
        clean = (await http.post(COMPLETIONS, json={"prompt": "Once"})).json()
    warned = {warning.split()[0].rstrip(":") for warning in whole["warnings"]}
    assert warned == {"user", "topp", "top_p", "stop", "stream_options", "max_tokens"}
    assert {w.split()[0].rstrip(":") for w in stream[-1]["warnings"]} == warned - {"stream_options"}
    assert "warnings" not in clean
