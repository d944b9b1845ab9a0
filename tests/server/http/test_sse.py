"""Streams: early statuses, comments while waiting, errors in the middle, clients that leave."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from server.errors import ApiError, ClientLeft
from server.generation.request_context import AccessRecord, RequestContext
from server.http.sse import while_connected, within_limits
from support.api.http import CHAT, COMPLETIONS, Live, client, error_of, events, text_of, user
from support.fakes.engine import TEXT, FakeEngine, make_app, serving
from support.quick import every

pytestmark = pytest.mark.asyncio
STREAM = {"prompt": "Once", "stream": True}


async def until(condition, what: str) -> None:
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"never: {what}")


async def test_comments_are_sent_while_queued_and_during_prefill():
    engine = FakeEngine(prefill_s=0.5)
    engine.gate.clear()
    app = make_app(engine, keep_alive_s=0.02)
    async with client(app):
        live = Live(app, CHAT, {"messages": user("A cat"), "stream": True})
        await live.until(": keep-alive, prompt 0/6\n\n")
        assert live.status == 200
        engine.gate.set()
        await live.until(": keep-alive, prompt 3/6\n\n")
        assert text_of(events(await live.finish())) == TEXT


async def test_comments_are_not_sent_while_there_are_events():
    async with client(make_app(FakeEngine(delay_s=0.01), keep_alive_s=60.0)) as http:
        response = await http.post(COMPLETIONS, json=STREAM)
    assert ": keep-alive" not in response.text


async def test_an_error_after_a_comment_is_an_event():
    engine = FakeEngine(fail_after=0)
    engine.gate.clear()
    app = make_app(engine, keep_alive_s=0.02)
    async with client(app):
        live = Live(app, COMPLETIONS, STREAM)
        await live.until(": keep-alive")
        engine.gate.set()
        assert [chunk["error"]["code"] for chunk in events(await live.finish())] == ["internal_error"]


async def test_a_lost_engine_ends_the_stream_with_an_error():
    engine = FakeEngine(delay_s=0.01, eos=False)
    engine.reply = [11] * 100_000
    app = make_app(engine)
    async with client(app):
        lives = [Live(app, COMPLETIONS, STREAM), Live(app, COMPLETIONS, {**STREAM, "n": 3})]
        for live in lives:
            await live.until("data: ")
        engine.fail_all()
        for live in lives:
            chunks = events(await live.finish())
            assert chunks[-1]["error"]["code"] == "engine_failed"
            assert text_of(chunks[:-1]) + text_of(chunks[:-1], 1)


async def test_step_of_several_tokens_is_one_chunk_per_token():
    """As if each had been computed alone: with drafts a step brings several."""
    answers = []
    for step in (1, 4):
        async with client(FakeEngine(step=step)) as http:
            chunks = events((await http.post(COMPLETIONS, json=STREAM)).text)
        answers.append([chunk["choices"] and chunk["choices"][0]["text"] for chunk in chunks])
        assert text_of(chunks) == TEXT
    assert answers[0] == answers[1]


@pytest.mark.parametrize("extra", every(4, [{"n": 3}, {}, {"logprobs": 1}, {"stop": "zzz"}]))
@pytest.mark.parametrize("when", ["queued", "decode"])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_disconnects_frees_its_sessions(stream, when, extra):
    engine = FakeEngine(delay_s=0.02, eos=False)
    engine.reply = [11] * 10_000
    if when == "queued":
        engine.gate.clear()
    app = make_app(engine)
    n = extra.get("n", 1)
    with serving(app) as base:
        async with httpx.AsyncClient(base_url=base) as http:
            body = {**STREAM, **extra, "stream": stream}
            asking = asyncio.create_task(http.post(COMPLETIONS, json=body))
            await until(lambda: len(engine.seen) == n, "all sequences submitted")
            if when == "decode":
                await until(lambda: all(r.n_generated for r in engine.requests()), "tokens")
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        await until(lambda: not engine.requests(), "no session left")
        assert sorted(engine.left) == sorted(request.id for request in engine.seen)
        await until(lambda: not app.state.ggserve.jobs, "no job left")
        metrics = httpx.get(base + "/metrics").text
        assert 'ggserve_running{model="stories"} 0.0' in metrics
        if not stream:
            assert 'route="/v1/completions",status="499"} 1.0' in metrics


async def test_disconnected_client_is_logged_with_its_cost(caplog):
    caplog.set_level("INFO", logger="ggserve.access")
    engine = FakeEngine(delay_s=0.01, eos=False)
    engine.reply = [11] * 10_000
    with serving(make_app(engine)) as base:
        async with (
            httpx.AsyncClient(base_url=base) as http,
            http.stream("POST", COMPLETIONS, json=STREAM) as response,
        ):
            async for _ in response.aiter_lines():
                break
        await until(lambda: any("status=499" in r.getMessage() for r in caplog.records), "a line with 499")
    line = next(r for r in caplog.records if "status=499" in r.getMessage())
    assert line.fields["predicted_n"] >= 1
    assert line.fields["prompt_n"] == 2
    assert line.fields["error"] == "client_left"


async def test_disconnected_clients_do_not_affect_others():
    engine = FakeEngine(delay_s=0.1)
    with serving(make_app(engine)) as base:
        async with httpx.AsyncClient(base_url=base) as http:
            rest = [asyncio.create_task(http.post(COMPLETIONS, json=STREAM)) for _ in range(4)]
            await until(lambda: len(engine.seen) == 4, "four sessions")
            rest[1].cancel()
            rest[3].cancel()
            answers = await asyncio.gather(*rest, return_exceptions=True)
    assert [text_of(events(a.text)) for a in answers if isinstance(a, httpx.Response)] == [TEXT, TEXT]


async def test_a_slow_reader_pauses_its_session():
    engine = FakeEngine(eos=False)
    engine.reply = [11] * 30_000
    app = make_app(engine)
    with serving(app) as base:
        host, port = base.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=4096)
        body = json.dumps(STREAM).encode()
        writer.write(
            b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body) + body
        )
        await until(lambda: bool(engine.paused), "a pause")
        async with httpx.AsyncClient(base_url=base) as http:  # others do not notice
            other = await http.post(COMPLETIONS, json={"prompt": "x", "max_tokens": 5})
        assert other.status_code == 200
        while engine.paused:
            assert await reader.read(65536)
        writer.close()
        await writer.wait_closed()
        await until(lambda: not engine.requests(), "no session left")


async def test_error_before_the_stream_begins_has_its_status():
    async with client(FakeEngine(n_ctx=16)) as http:
        error_of(await http.post(COMPLETIONS, json={"prompt": [9] * 20, "stream": True}), 400)


async def test_stream_cut_anywhere_is_read_the_same():
    """The stream, cut at every place, is the same to a client that reads by lines."""
    async with client(FakeEngine("é🍕\r\n\tdata: [DONE]\u2028")) as http:
        raw = (await http.post(COMPLETIONS, json=STREAM)).content
    assert text_of(events(raw.decode())) == "é🍕\r\n\tdata: [DONE]\u2028"
    for size in (1, 2, 3, 7):
        rest, lines = b"", []
        for i in range(0, len(raw), size):
            *actual, rest = (rest + raw[i : i + size]).split(b"\n")
            lines += actual
        assert rest == b""
        assert b"\n".join(lines) + b"\n" == raw
        assert all(not line or line.startswith(b"data: ") for line in lines)


# --- work that ends with its client, or its time


class LeavingClient:
    def __init__(self) -> None:
        self.leaves = asyncio.Event()

    async def receive(self) -> dict[str, str]:
        await self.leaves.wait()
        return {"type": "http.disconnect"}


def context(**settings) -> RequestContext:
    return RequestContext(make_app(FakeEngine(), **settings).state.ggserve, AccessRecord("id"))


async def test_work_completes_while_the_client_is_connected():
    async def work() -> int:
        return 5

    assert await while_connected(LeavingClient().receive, work()) == 5


async def test_work_is_cancelled_when_the_client_disconnects():
    client, cancelled = LeavingClient(), []

    async def work() -> None:
        client.leaves.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    with pytest.raises(ClientLeft):
        await while_connected(client.receive, work())
    assert cancelled == [True]


@pytest.mark.parametrize(
    ("timeout_ms", "limit_s", "param"),
    [(1, None, "timeout_ms"), (1, 60, "timeout_ms"), (60_000, 0.001, None)],
)
async def test_smaller_time_limit_applies_and_is_named(timeout_ms, limit_s, param):
    request_context = context(request_timeout_s=limit_s)
    with pytest.raises(ApiError) as raised:
        await within_limits(LeavingClient().receive, request_context, timeout_ms, asyncio.sleep(60))
    assert (raised.value.status_code, raised.value.code, raised.value.param) == (503, "timeout", param)
    assert (param or "--request-timeout-s") in raised.value.message


async def test_time_limit_of_a_request_includes_its_models_load():
    request_context = context(request_timeout_s=None)
    request_context.record.load_ms = 60_000.0
    with pytest.raises(ApiError) as raised:
        async with asyncio.timeout(10):
            await within_limits(LeavingClient().receive, request_context, 60_000, asyncio.sleep(60))
    assert raised.value.param == "timeout_ms"
