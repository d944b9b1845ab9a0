"""A server that answers well, badly, or not at all."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from engine.errors import ConfigError
from server.terminal.backend import AnswerFailed, Piece
from server.terminal.remote import RemoteServer, base_url

MESSAGES = [{"role": "user", "content": "Hi"}]


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    event = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}
    return b"data: " + json.dumps(event).encode() + b"\n\n"


class ScriptedServer:
    """Answers the chat route with `body`, and records what it was sent."""

    def __init__(self) -> None:
        self.status, self.kind, self.body = 200, "text/event-stream", b""
        self.headers: dict[str, str] = {}
        self.models: bytes = json.dumps({"data": [{"id": "first"}, {"id": "second"}]}).encode()
        self.requests: list[tuple[str, str | None, Any]] = []
        self.models_status = 200
        self.gets: list[tuple[str, str | None]] = []
        script = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *arguments: Any) -> None:
                pass

            def do_GET(self) -> None:
                script.gets.append((self.path, self.headers["authorization"]))
                self.reply(script.models_status, "application/json", script.models)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                script.requests.append((self.path, self.headers["authorization"], json.loads(body)))
                self.reply(script.status, script.kind, script.body)

            def reply(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("content-type", kind)
                for name, value in script.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

        self.http = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    server = ScriptedServer()
    thread = threading.Thread(target=server.http.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join()


def answer(server: ScriptedServer, body: bytes, **fields: Any) -> list[Piece]:
    server.body = body
    return list(RemoteServer(server.url, "", None, fields).answer(MESSAGES))


def test_streamed_answer_has_reasoning_text_and_warnings(server: ScriptedServer) -> None:
    body = b": comment\n\n" + chunk({"role": "assistant", "content": ""})
    body += chunk({"reasoning_content": "Hm"}) + chunk({"content": "Hel"}) + chunk({"content": "lo", "x": 1})
    body += (
        chunk({}, "stop", warnings=["no effect"]) + b'data: {"choices": [], "usage": {}}\n\ndata: [DONE]\n\n'
    )
    pieces = answer(server, body, temperature=0.5)
    assert pieces == [Piece(reasoning="Hm"), Piece("Hel"), Piece("lo"), Piece(warning="no effect")]
    assert server.requests == [
        (
            "/v1/chat/completions",
            None,
            {"temperature": 0.5, "model": "first", "messages": MESSAGES, "stream": True},
        )
    ]


def test_request_has_the_users_model_and_key(server: ScriptedServer) -> None:
    server.body = chunk({"content": "x"}, "length")
    remote = RemoteServer(f"{server.url}/v1/", "second", "secret", {})
    assert "token limit" in list(remote.answer(MESSAGES))[-1].note
    ((path, key, body),) = server.requests
    assert (path, key, body["model"]) == ("/v1/chat/completions", "Bearer secret", "second")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "before the answer was complete"),
        (chunk({"content": "x"}), "before the answer was complete"),
        (b"data: x\n\n", "not an OpenAI chat completion chunk"),
        (b"data: " + b"[" * 100_000 + b"\n\n", "not an OpenAI chat completion chunk"),
        (b"data: []\n\n", "not an OpenAI chat completion chunk"),
        (b'data: {"error": {"message": "out of memory"}}\n\n', "out of memory"),
        (b'data: {"error": 5}\n\n', "error without a message"),
    ],
)
def test_malformed_stream_is_an_error(server: ScriptedServer, body: bytes, message: str) -> None:
    with pytest.raises(AnswerFailed, match=message):
        answer(server, body)


@pytest.mark.parametrize("choices", [None, 5, [], [None], [{}], [{"delta": 5}], [{"delta": {"content": 5}}]])
def test_chunks_of_unexpected_shape_are_ignored(server: ScriptedServer, choices: Any) -> None:
    odd = b"data: " + json.dumps({"choices": choices}).encode() + b"\n\n"
    assert answer(server, odd + chunk({"content": "x"}, "stop")) == [Piece("x")]


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (401, b'{"error": {"message": "no key"}}', "401: no key; set a key with --api-key-file"),
        (400, b'{"error": {"message": "too long", "code": "context_length_exceeded"}}', "too long; /clear"),
        (502, b"<html><h1>Bad gateway</h1></html>", "502: Bad gateway"),
        (500, b"", "500: no reason given"),
        (404, b'{"error": "no such model"}', "404: no such model"),
    ],
)
def test_refusal_is_reported_with_advice(
    server: ScriptedServer, status: int, body: bytes, message: str
) -> None:
    server.status = status
    with pytest.raises(AnswerFailed, match=message):
        answer(server, body)


def test_key_is_not_sent_to_a_redirect_target(server: ScriptedServer) -> None:
    server.models_status = server.status = 302
    server.headers = {"location": server.url.replace("127.0.0.1", "localhost") + "/elsewhere"}
    with pytest.raises(ConfigError, match=r"redirects to 'http://localhost:.*/elsewhere'"):
        RemoteServer(server.url, "", "secret", {})
    with pytest.raises(AnswerFailed, match="redirects to"):
        list(RemoteServer(server.url, "first", "secret", {}).answer(MESSAGES))
    assert server.gets == [("/v1/models", "Bearer secret")]


def test_truncated_body_is_an_error(server: ScriptedServer) -> None:
    server.headers = {"transfer-encoding": "chunked"}
    server.models = b"fff\r\nx"
    with pytest.raises(ConfigError, match="lists no models"):
        RemoteServer(server.url, "", None, {})
    server.status, server.body = 500, b"fff\r\nx"
    with pytest.raises(AnswerFailed, match="500: no reason given"):
        list(RemoteServer(server.url, "first", None, {}).answer(MESSAGES))


def test_partial_characters_are_replaced(server: ScriptedServer) -> None:
    server.models = b'{"data": [{"id": "a\\ud83d"}]}'
    server.body = chunk({"content": "x\ud83d", "reasoning": "\ude00\U0001f600"}, "stop")
    remote = RemoteServer(server.url, "", None, {})
    assert remote.name == "a\ufffd"
    assert list(remote.answer(MESSAGES)) == [Piece("x\ufffd", "\ufffd\U0001f600")]


def test_server_of_another_kind_is_an_error(server: ScriptedServer) -> None:
    server.kind = "text/html"
    with pytest.raises(AnswerFailed, match="does not stream"):
        answer(server, b"<html>")
    for models in (b"<html>", b"{}", b'{"data": []}', b'{"data": [5]}'):
        server.models = models
        with pytest.raises(ConfigError, match="lists no models"):
            RemoteServer(server.url, "", None, {})
    server.http.socket.close()
    with pytest.raises(ConfigError, match=f"--url {server.url}: cannot reach {server.url}/v1: "):
        RemoteServer(server.url, "", None, {})


def test_key_that_does_not_fit_a_header_is_an_error(server: ScriptedServer) -> None:
    with pytest.raises(ConfigError, match="cannot reach"):
        RemoteServer(server.url, "", "a\nb", {})


def test_base_url_of_each_spelling_is_the_same() -> None:
    assert base_url("http://h:1") == base_url("http://h:1/") == base_url("h:1") == "http://h:1/v1"
    assert base_url("https://h/api/v1/") == "https://h/api/v1"
    assert base_url("http://[::1]:80") == "http://[::1]:80/v1"
    for bad in ("", "file:///etc/passwd", "ftp://h", "http://", "http://h:x", "http://h/?q=1", "http://["):
        with pytest.raises(ConfigError, match="is not a URL"):
            base_url(bad)
