"""No request makes the server fetch a URL or open a file, whichever field names it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.api.routes import POSTS, Ask, Route, asking, kinds
from support.quick import every

SECRET = "the contents of a file"
PARTS = ("image_url", "input_image", "input_audio", "input_file", "file", "video_url", "image", "document")


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    with asking() as asker:
        yield asker


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def parts(url: str) -> list[dict[str, Any]]:
    """Parts of a message that are somewhere else, as the APIs write them."""
    references = ({"url": url}, url, {"file_url": url}, {"type": "url", "url": url})
    return [
        {"type": kind, name: reference, "source": {"type": "url", "url": url}}
        for kind in PARTS
        for name in (kind, "file_url")
        for reference in references
    ]


@pytest.mark.parametrize("route", every(3, POSTS), ids=str)
def test_url_or_path_in_a_field_is_not_fetched(
    route: Route, ask: Ask, listener: socket.socket, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text(SECRET)
    urls = [f"http://127.0.0.1:{listener.getsockname()[1]}/a.png", file.as_uri(), str(file)]
    for url in urls:
        bodies = [
            field.body(url) for field in route.all_fields() if "string" in (kinds(field.schema) or {"string"})
        ]
        for name in {"messages", "input", "prompt", "content", "documents"} & set(route.fields):
            bodies += [
                {**route.body(), name: [{"role": "user", "content": [part]}] if name != "content" else [part]}
                for part in parts(url)
            ]
        for body in bodies:
            assert SECRET not in ask(route, body).text
    with pytest.raises(BlockingIOError):  # nobody came
        listener.accept()
