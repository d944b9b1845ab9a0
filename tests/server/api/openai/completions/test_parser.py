"""Fields of a completion request that are refused."""

from __future__ import annotations

import pytest

from support.api.http import COMPLETIONS, client, error_of
from support.fakes.engine import FakeEngine

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("suffix", " end"),
        ("tools", [{"type": "function"}]),
        ("grammar", "root ::= 'a'"),  # what that is instead: not GBNF
    ],
)
async def test_unsupported_features_are_refused(field, value):
    engine = FakeEngine()
    async with client(engine) as http:
        response = await http.post(COMPLETIONS, json={"prompt": "Once", field: value})
    assert error_of(response, 400)["param"] == field
    assert engine.seen == []
