"""A backend that uses a running server, through OpenAI's chat route."""

from __future__ import annotations

import json
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

from engine.errors import ConfigError
from server.terminal.backend import AnswerFailed, Message, Piece

MAX_LINE = 1 << 22
MAX_ERROR = 1 << 16
TIMEOUT_S = 600.0  # without a byte; a busy server sends comments meanwhile, but others may not


_SURROGATE = re.compile("[\ud800-\udfff]")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Refuses redirects: Python's default would send the key to any host, and turn a POST into a GET."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
        fp.close()
        raise AnswerFailed(
            f"the server redirects to {newurl[:200]!r}; give the address of its API with --url"
        )


_opener = urllib.request.build_opener(_NoRedirects)


class RemoteServer:
    """Answers with `model` of the server at `url`; an empty model means the first one that the server lists.

    key: sent as a bearer token. fields: added to every request, such as temperature.
    """

    def __init__(self, url: str, model: str, key: str | None, fields: Mapping[str, Any]) -> None:
        """Raises ConfigError for an invalid address, or a server that does not answer or has no models."""
        self._base = base_url(url)
        self._key, self._fields = key, dict(fields)
        try:
            self.name = model or self._first_model()
        except AnswerFailed as error:
            raise ConfigError(f"--url {url}: {error}") from error

    def answer(self, messages: Sequence[Message]) -> Iterator[Piece]:
        """See `Backend`."""
        body = {**self._fields, "model": self.name, "messages": list(messages), "stream": True}
        with self._open("/chat/completions", body) as response:
            if "text/event-stream" not in response.headers.get("content-type", ""):
                raise AnswerFailed(f"{self._base} does not stream: is it an OpenAI-compatible server?")
            finished = False
            for event in events(response):
                yield from pieces(event)
                finished = finished or bool(_choice(event).get("finish_reason"))
            if not finished:
                raise AnswerFailed("the server ended the stream before the answer was complete")

    def save_cache(self, path: Path) -> int:
        """Does nothing: the server has the cache."""
        return 0

    def load_cache(self, path: Path) -> None:
        """Does nothing: the server has the cache."""

    def close(self) -> None:
        """Does nothing: no connection is open between answers."""

    def _first_model(self) -> str:
        with self._open("/models", None) as response:
            try:
                models = json.loads(_read(response, MAX_LINE))
                return _whole_characters(str(models["data"][0]["id"]))
            except (ValueError, LookupError, TypeError, RecursionError):
                raise AnswerFailed("lists no models: is it an OpenAI-compatible server?") from None

    def _open(self, path: str, body: dict[str, Any] | None) -> HTTPResponse:
        headers = {"accept": "text/event-stream, application/json"}
        if self._key is not None:
            headers["authorization"] = f"Bearer {self._key}"
        data = None
        if body is not None:
            headers["content-type"] = "application/json"
            data = json.dumps(body).encode()
        try:
            request = urllib.request.Request(self._base + path, data, headers)
            response: HTTPResponse = _opener.open(request, timeout=TIMEOUT_S)
            return response
        except urllib.error.HTTPError as error:
            with error:
                raise AnswerFailed(error_text(error.code, _read(error, MAX_ERROR), self._key)) from None
        except (OSError, HTTPException, ValueError) as error:  # ValueError: a header that cannot be sent
            reason = getattr(error, "reason", None) or error
            if isinstance(reason, ssl.SSLCertVerificationError):
                reason = (
                    f"its certificate is not trusted ({reason.verify_message}); if it should be, name it, or "
                    "that of its issuer, in the environment variable SSL_CERT_FILE"
                )
            reason = getattr(reason, "strerror", None) or reason
            raise AnswerFailed(f"cannot reach {self._base}: {reason}") from None


def _read(response: HTTPResponse | urllib.error.HTTPError, n_bytes: int) -> bytes:
    """At most `n_bytes` of a body; empty if the body breaks off."""
    try:
        return response.read(n_bytes)
    except (OSError, HTTPException):
        return b""


def _whole_characters(text: str) -> str:
    """The text without lone surrogates, which JSON can contain but terminals and files cannot."""
    return _SURROGATE.sub("\ufffd", text)


def base_url(url: str) -> str:
    """The address to which routes are appended: /v1 is added if there is no path. Raises ConfigError."""
    try:
        parts = urllib.parse.urlsplit(url if "://" in url else f"http://{url}")
        valid = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port)
    except ValueError:
        valid = False
    if not valid or parts.query or parts.fragment:
        raise ConfigError(f"--url {url}: is not a URL such as http://127.0.0.1:8080")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/') or '/v1'}"


def events(response: HTTPResponse) -> Iterator[dict[str, Any]]:
    """The JSON objects of an event stream. Raises AnswerFailed for anything else."""
    while True:
        try:
            line = response.readline(MAX_LINE)
        except (OSError, HTTPException) as error:
            raise AnswerFailed(f"the connection to the server was lost: {error}") from None
        if not line:
            return
        if not line.startswith(b"data:"):
            continue
        data = line.removeprefix(b"data:").strip()
        if data == b"[DONE]":
            return
        try:
            event = json.loads(data)
        except (ValueError, RecursionError):
            event = None
        if not isinstance(event, dict):
            raise AnswerFailed("the server sent an event that is not an OpenAI chat completion chunk")
        if event.get("error") is not None:
            raise AnswerFailed(_message(event) or "the server reported an error without a message")
        yield event


def pieces(event: Mapping[str, Any]) -> Iterator[Piece]:
    """The text that one chunk adds, and its server's notes."""
    choice = _choice(event)
    delta = choice.get("delta")
    if isinstance(delta, dict):
        content = delta.get("content") or ""
        reasoning = delta.get("reasoning_content") or delta.get("reasoning") or ""
        if isinstance(content, str) and isinstance(reasoning, str) and (content or reasoning):
            yield Piece(_whole_characters(content), _whole_characters(reasoning))
    warnings = event.get("warnings")
    for warning in warnings if isinstance(warnings, list) else ():
        yield Piece(warning=str(warning.get("message", warning) if isinstance(warning, dict) else warning))
    if choice.get("finish_reason") == "length":
        yield Piece(
            note="the answer ends here at a token limit; if the context is full, /clear starts a new "
            "conversation"
        )


def _choice(event: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = event.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return choices[0]
    return {}


def _message(body: Any) -> str | None:
    error = body.get("error") if isinstance(body, dict) else None
    text = error.get("message") if isinstance(error, dict) else error
    return text if isinstance(text, str) and text else None


def error_text(status: int, body: bytes, key: str | None) -> str:
    """The message of an error response, and what to do."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        data = None
    lines = re.sub(r"<[^>]*>", " ", body.decode("utf-8", "replace")).split()
    text = _message(data) or " ".join(lines)[:200] or "no reason given"
    text = f"the server responded with status {status}: {text}"
    error = data.get("error") if isinstance(data, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    if status == 401:
        text += "; set another key" if key else "; set a key with --api-key-file, or GGSERVE_API_KEY"
    elif code == "context_length_exceeded":
        text += "; /clear begins a new conversation"
    return text
