"""When the official clients try again, and when they are told not to: by what they really send and wait."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import anthropic
import openai
import pytest

from engine.types import Request
from server.worker.errors import EngineUnavailable, QueueFull
from support.api.http import user
from support.fakes.engine import TEXT, FakeEngine, make_app, serving

Ask = Callable[..., str]
RETRIES = 2


def ask_openai(base: str, stream: bool = False, **fields: Any) -> str:
    body = {"model": "stories", "messages": user("A cat"), "stream": stream, **fields}
    with openai.OpenAI(base_url=base + "/v1", api_key="sesame", max_retries=RETRIES) as api:
        answer = api.chat.completions.create(**body)
        if not stream:
            return answer.choices[0].message.content
        return "".join(chunk.choices[0].delta.content or "" for chunk in answer)


def ask_anthropic(base: str, stream: bool = False, **fields: Any) -> str:
    body = {"model": "stories", "messages": user("A cat"), "stream": stream, "max_tokens": 64, **fields}
    with anthropic.Anthropic(base_url=base, api_key="sesame", max_retries=RETRIES) as api:
        answer = api.messages.create(**body)
        if not stream:
            return answer.content[0].text
        return "".join(event.delta.text for event in answer if event.type == "content_block_delta")


class Later(FakeEngine):
    """Takes the third request."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error, self.calls = error, 0

    def ensure_room(self, n: int = 1) -> None:
        self.calls += 1
        if isinstance(self.error, QueueFull):
            self._refuse()

    def generate(self, request: Request) -> Any:
        self._refuse()
        return super().generate(request)

    def _refuse(self) -> None:
        if self.calls <= RETRIES:
            raise self.error


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that a client would have waited."""
    collected: list[float] = []
    monkeypatch.setattr("time.sleep", collected.append)
    return collected


@pytest.fixture
def statuses(caplog: pytest.LogCaptureFixture) -> Callable[[], list[int]]:
    """Of the requests that came."""
    caplog.set_level(logging.INFO, "ggserve.access")
    return lambda: [r.fields["status"] for r in caplog.records if r.name == "ggserve.access"]


clients = pytest.mark.parametrize("ask", [ask_openai, ask_anthropic])
streams = pytest.mark.parametrize("stream", [False, True])


@clients
@streams
@pytest.mark.parametrize(
    ("error", "status", "seconds"), [(QueueFull(3, 6.5), 429, 7), (EngineUnavailable("it restarts"), 503, 2)]
)
def test_client_retries_after_the_reported_time(ask, stream, error, status, seconds, waits, statuses):
    with serving(make_app(Later(error))) as base:
        assert ask(base, stream) == TEXT
    assert statuses() == [status, status, 200]
    assert waits == [seconds, seconds]


@clients
def test_client_retries_while_a_model_loads(ask, waits, statuses):
    engine = FakeEngine()

    async def start() -> None:
        engine.state = "loading"

    engine.start = start
    wait = waits.append

    def ready(seconds: float) -> None:
        wait(seconds)
        engine.state = "ready"

    with serving(make_app(engine)) as base, pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.sleep", ready)
        assert ask(base) == TEXT
    assert statuses() == [503, 200]
    assert waits == [2]


NEVER = {
    "a wrong field": ({}, {"extra_body": {"temperature": -1}}, 400),
    "another model": ({}, {"model": "gpt"}, 404),
    "a long prompt": ({"n_ctx": 8}, {"messages": user("word " * 9)}, 400),
    "a fault of the request": ({"fail_after": 0}, {}, 500),
    "an engine that is gone": ({"state": "failed"}, {}, 503),
}


@clients
@streams
@pytest.mark.parametrize("case", NEVER)
def test_client_does_not_retry_what_cannot_succeed(ask, stream, case, waits, statuses):
    attributes, fields, status = NEVER[case]
    engine = FakeEngine()
    with serving(make_app(engine)) as base:
        for name, value in attributes.items():
            setattr(engine, name, value)
        with pytest.raises((openai.APIStatusError, anthropic.APIStatusError)) as caught:
            ask(base, stream, **fields)
    assert caught.value.status_code == status
    assert caught.value.request_id
    assert statuses() == [status]
    assert waits == []


@clients
def test_client_does_not_retry_with_a_wrong_key(ask, waits, statuses):
    with (
        serving(make_app(FakeEngine(), api_key=["pumpkin"])) as base,
        pytest.raises((openai.AuthenticationError, anthropic.AuthenticationError)),
    ):
        ask(base)
    assert (statuses(), waits) == ([401], [])


@clients
def test_client_does_not_retry_after_the_first_event(ask, waits, statuses):
    with (
        serving(make_app(FakeEngine(fail_after=2))) as base,
        pytest.raises((openai.APIError, anthropic.APIStatusError)),
    ):
        ask(base, True)
    assert (statuses(), waits) == ([500], [])


@pytest.mark.asyncio
async def test_asynchronous_clients_retry_alike():
    with serving(make_app(FakeEngine(), api_key=["sesame"])) as base:
        async with openai.AsyncOpenAI(base_url=base + "/v1", api_key="sesame", max_retries=0) as api:
            chunks = await api.completions.create(model="stories", prompt="Once", stream=True)
            assert "".join([chunk.choices[0].text async for chunk in chunks]) == TEXT
            with pytest.raises(openai.BadRequestError):
                await api.completions.create(model="stories", prompt="Once", n=0)
        async with anthropic.AsyncAnthropic(base_url=base, api_key="sesame", max_retries=0) as api:
            body = {"model": "stories", "messages": user("A cat"), "max_tokens": 64}
            async with api.messages.stream(**body) as stream:
                assert "".join([text async for text in stream.text_stream]) == TEXT
            with pytest.raises(anthropic.BadRequestError):
                await api.messages.create(**{**body, "max_tokens": 0})
