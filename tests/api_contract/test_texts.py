"""What the answers of all generating routes have in common: the text, however it comes, and the counts."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.types import Request
from support.api.routes import GENERATING, Ask, able_engine, asking
from support.api.wordings import WORDINGS, Wording
from support.fakes.engine import tokenizer
from support.quick import examples

ODD = "é🍕\r\n\tdata: [DONE]\u2028 end</s>\n\nevent: x 日本語 \0 \U0010ffff"


def ids(text: str) -> list[int]:
    """Tokens of a text in which nothing is special."""
    tokens: list[int] = tokenizer().encode(text, add_special=False, parse_special=False)
    return tokens


SPECIAL = tokenizer().eog_ids | {tokenizer().bos_id}
PIECES = st.sampled_from([ids(ODD), ids(" a cat"), ids("aaa"), ids("🍕🍕")]) | st.integers(2, 2047).map(
    lambda id: [] if id in SPECIAL else [id]
)
by_path = pytest.mark.parametrize("wording", WORDINGS, ids=lambda wording: wording.path)


class Script:
    """A reply that tests change between requests."""

    def __init__(self) -> None:
        self.tokens: list[int] = []

    def __call__(self, request: Request) -> list[int]:
        return self.tokens


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    with asking(able_engine(Script(), step=1)) as asker:
        yield asker


def test_every_generating_route_has_a_wording() -> None:
    assert {wording.path for wording in WORDINGS} == {route.path for route in GENERATING}


def post(ask: Ask, wording: Wording, **fields: Any) -> Any:
    return ask.request("POST", wording.path, json=wording.body("Once", **fields))


def cut(text: str, stops: list[str]) -> str:
    """Before the stop string that ends first, as the text grows."""
    for end in range(len(text) + 1):
        ends = [text[:end].find(stop) for stop in stops if text[:end].endswith(stop)]
        if ends:
            return text[: min(ends)]
    return text


@by_path
def test_streamed_text_equals_the_whole_one_and_ends_before_the_stop(wording: Wording, ask: Ask) -> None:
    """Characters and stop strings are split over tokens in any way; neither comes out in part."""

    @examples(25)
    @given(data=st.data())
    def same(data: st.DataObject) -> None:
        tokens = [id for piece in data.draw(st.lists(PIECES, max_size=12)) for id in piece]
        text = tokenizer().decode(tokens)
        ask.engine.reply.tokens = tokens  # type: ignore[attr-defined]
        ask.engine.step = data.draw(st.integers(1, 5))
        places = st.integers(0, max(0, len(text) - 1))
        stops = [
            text[start : start + n]
            for start, n in data.draw(st.lists(st.tuples(places, st.integers(1, 6)), max_size=3))
            if text[start : start + n]
        ]
        expected = cut(text, stops)
        whole = wording.read(post(ask, wording, **{wording.stop: stops}))
        streamed = wording.read(post(ask, wording, **{wording.stop: stops}, stream=True))
        assert whole.text == streamed.text == expected
        assert whole.finish == streamed.finish == "stop"
        assert whole.usage == streamed.usage

    same()


@pytest.mark.exhaustive
@by_path
def test_stream_split_anywhere_is_read_the_same(wording: Wording, ask: Ask) -> None:
    """By the decoder of the official clients, event streams by both."""
    import anthropic._streaming  # slow
    import openai._streaming

    ask.engine.reply.tokens = ids(ODD)  # type: ignore[attr-defined]
    response = post(ask, wording, stream=True)
    raw = response.content
    expected = wording.events([raw])
    assert wording.streamed(expected).text == tokenizer().decode(ids(ODD))
    is_event_stream = response.headers["content-type"].startswith("text/event-stream")

    @examples(25)
    @given(cuts=st.lists(st.integers(0, len(raw)), max_size=200))
    def same(cuts: list[int]) -> None:
        places = sorted({0, len(raw), *cuts})
        parts = [raw[a:b] for a, b in pairwise(places)]
        assert wording.events(parts) == expected
        if is_event_stream:
            actual = [
                [(event.event, event.data) for event in decoder.iter_bytes(iter(parts))]
                for decoder in (openai._streaming.SSEDecoder(), anthropic._streaming.SSEDecoder())
            ]
            assert actual[0] == actual[1]

    same()
    for size in (1, 2, 3):
        assert wording.events(raw[i : i + size] for i in range(0, len(raw), size)) == expected


@by_path
@pytest.mark.parametrize("stream", [False, True])
def test_counts_match_those_of_the_engine(wording: Wording, stream: bool, ask: Ask) -> None:
    ask.forget()
    ask.engine.reply.tokens = ids(" a cat and a dog")  # type: ignore[attr-defined]
    ask.engine.cached_n = 2
    replies = [wording.read(post(ask, wording, stream=stream)), wording.read(post(ask, wording, limit=3))]
    ask.engine.cached_n, n_script = 0, len(ids(" a cat and a dog"))
    for reply, request, n in zip(replies, ask.engine.seen, (n_script + 1, 3), strict=True):
        assert reply.usage == (len(request.prompt), 2, n)
    assert [reply.finish for reply in replies] == ["stop", "length"]


def test_totals_equal_the_sum_of_usage_over_all_routes() -> None:
    """Cut short by a stop string or a limit, streamed or not, cached or not."""
    updates = []
    with asking(able_engine(" a cat, a dog", cached_n=1)) as ask:
        for wording in WORDINGS:
            for fields in ({}, {"limit": 2}, {wording.stop: ["dog"]}):
                for stream in (False, True):
                    updates.append(wording.read(post(ask, wording, stream=stream, **fields)).usage)
        metrics_text = ask.request("GET", "/metrics").text
    for name, total in (
        ("prompt", sum(usage.prompt for usage in updates)),
        ("cached", sum(usage.cached for usage in updates)),
        ("predicted", sum(usage.completion for usage in updates)),
    ):
        assert f'ggserve_{name}_tokens_total{{model="stories"}} {float(total)}\n' in metrics_text
