"""Sessions whose rotary factors change with their length: everything must be as if computed at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import engine
from engine import InferenceParameters, InferenceSessionConfig
from engine.types import Request
from support.builders.golden import error, golden

TOLERANCE = 1e-3

LIMIT = 160  # tokens of the longest short sequence of this model
REF = golden("phi3-crossing")
TOKENS = [*REF.prompt, *REF.greedy.tokens]
GREEDY = InferenceParameters(temperature=0.0, max_tokens=24, ignore_eos=True)


@pytest.fixture(scope="module")
def model() -> Iterator[engine.Model]:
    params = engine.ModelParameters(
        use_gpu=False, kv_type="f32", context_size=256, kv_cells=1024, n_threads=1
    )
    with engine.load(REF.path, params) as loaded:
        assert loaded.hp.original_context_length == LIMIT
        yield loaded


def start(model: engine.Model, cache: bool = False, n_batch: int = 512) -> engine.InferenceSession:
    return model.start_session(InferenceSessionConfig(n_batch=n_batch, cache_prompt=cache))


def after(model: engine.Model, tokens: list[int]) -> np.ndarray:
    """The logits that a new session has after `tokens`."""
    with start(model) as session:
        session.feed_prompt(tokens)
        return session.last_logits


def test_logits_depend_on_the_length_of_the_sequence(model: engine.Model) -> None:
    with start(model) as session:
        session.feed_prompt(TOKENS[: LIMIT - 1])
        assert (session._sequence.uses_long_rope, session.n_past) == (False, LIMIT - 1)
        session.feed_prompt(TOKENS[LIMIT - 1 : LIMIT])
        assert not session._sequence.uses_long_rope
        session.feed_prompt(TOKENS[LIMIT : LIMIT + 1])
        assert (session._sequence.uses_long_rope, session.n_past) == (True, LIMIT + 1)


@pytest.mark.parametrize("cache", [False, True])
def test_a_rewound_session_is_short_again(model: engine.Model, cache: bool) -> None:
    with start(model, cache) as session:
        session.feed_prompt(TOKENS[: LIMIT + 5])
        session.rewind(10)
        session.feed_prompt([7, 8])
        expected = after(model, [*TOKENS[: LIMIT - 5], 7, 8])
        assert error(session.last_logits, expected) < TOLERANCE
        session.feed_prompt(TOKENS[:20])
        expected = after(model, [*TOKENS[: LIMIT - 5], 7, 8, *TOKENS[:20]])
        assert error(session.last_logits, expected) < TOLERANCE


def test_short_and_long_sequences_share_no_prefix(model: engine.Model) -> None:
    short, long = TOKENS[: LIMIT - 20], [*TOKENS[: LIMIT - 20], *TOKENS[5:45]]
    for _ in range(2):  # computed, then from the cache
        for tokens in (short, long):
            with start(model, cache=True) as session:
                session.feed_prompt(tokens)
                assert error(session.last_logits, after(model, tokens)) < TOLERANCE


def test_session_saved_where_it_becomes_long_continues_alike(model: engine.Model, tmp_path: Path) -> None:
    with start(model) as session:
        session.feed_prompt(REF.prompt)
        known = [token.id for _, token in zip(range(11), session.infer(GREEDY), strict=False)]
        assert len(session.tokens) == LIMIT + 1
        assert session._sequence.n_pending == 1
        session.save(tmp_path / "saved")
    with model.restore_session(tmp_path / "saved") as session:
        assert [*known, *(token.id for token in session.infer(GREEDY))][:24] == REF.greedy.tokens


@pytest.mark.parametrize("n_known", [3, 10, 11, 15])
def test_a_resumed_stream_continues_with_the_same_text(model: engine.Model, n_known: int) -> None:
    scheduler = model.scheduler()
    request = Request(
        id="x", prompt=REF.prompt, params=GREEDY, n_batch=32, generated=REF.greedy.tokens[:n_known]
    )
    scheduler.submit(request)
    actual = list(request.generated)
    while scheduler.has_work:
        for emission in scheduler.step():
            actual += [token.id for token in emission.tokens]
    assert actual == REF.greedy.tokens
