"""POST /embeddings and /embedding: llama-server's format."""

from __future__ import annotations

import numpy as np
import pytest

from support.api.embeddings import expected
from support.api.http import client
from support.fakes.engine import FakeEngine, vectors

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize("path", ["/embeddings", "/embedding"])
async def test_embeddings_have_the_format_of_llama_server(path):
    engine = FakeEngine()
    async with client(engine) as http:
        answer = (await http.post(path, json={"content": ["a cat", [5, 6]]})).json()
        assert [sorted(entry) for entry in answer] == [["embedding", "index"]] * 2
        np.testing.assert_allclose(answer[1]["embedding"], expected([5, 6]), atol=1e-6)
        answer = (await http.post(path, json={"input": [5, 6, 7], "pooling": "none"})).json()
        np.testing.assert_array_equal(answer[0]["embedding"], vectors([5, 6, 7], "none"))
        answer = (await http.post(path, json={"input": [5, 6], "pooling": "none", "normalize": True})).json()
        np.testing.assert_allclose(answer[0]["embedding"], expected([5, 6], "none"), atol=1e-6)
        odd = await http.post(path, json={"input": [5], "encoding_format": "base64", "größe": 1})
        assert isinstance(odd.json()[0]["embedding"][0][0], float)
        assert odd.headers["x-warnings"].startswith("gr\\xf6\\xdfe has no effect; encoding_format has no")
        plain = await http.post(path, json={"input": [5]})
        assert "x-warnings" not in plain.headers
