"""Log-probabilities of a text's own tokens."""

from __future__ import annotations

from array import array

import numpy as np
import pytest

import engine
from engine.errors import ConfigError, ContextOverflowError, EngineError, OutOfMemoryError
from engine.sampling import log_softmax
from engine.tasks.logprob_rows import token_ranks, tokens_with_logprobs
from engine.tasks.prompt_logprobs import (
    PromptLogprobsRunner,
    most_likely,
    rank,
)
from support.fakes.engine import STORIES

PARAMS = engine.ModelParameters(use_gpu="false", context_size=64, parallel=2, kv_cells=96, n_threads=2)
TEXT = "Once upon a time there was a little cat. She liked to play in the garden"


@pytest.fixture(scope="module")
def model():
    with engine.load(STORIES, PARAMS) as model:
        yield model


@pytest.fixture(params=[1, 5, 512])
def batch(request, model, monkeypatch):
    monkeypatch.setattr(log_softmax, "LOGITS_BYTES", 4 * model.hp.n_vocab * request.param)
    return request.param


def logprobs(model, tokens, top=0, runner=None):
    runner = runner or PromptLogprobsRunner(model)
    runner.submit("a", tokens, top)
    parts = []
    while runner.has_work:
        job, actual = runner.step()
        assert job == "a"
        if isinstance(actual, Exception):
            raise actual
        parts.append(actual.rows)
    return tokens_with_logprobs(tokens, np.concatenate(parts))


def test_logprobs_match_the_softmax_of_each_position(model, batch):
    tokens = model.tokenizer.encode(TEXT)
    actual = logprobs(model, tokens, top=3)
    assert [token.id for token in actual] == tokens[1:]
    for i, token in enumerate(actual):
        with model.start_session() as session:
            session.feed_prompt(tokens[: i + 1])
            row = session.last_logits.astype(np.float64)
        expected = row - row.max() - np.log(np.exp(row - row.max()).sum())
        assert token.logprob == pytest.approx(expected[token.id], abs=2e-4)
        best = np.argsort(-expected, kind="stable")[:3]
        assert [id for id, _ in token.top] == best.tolist()
        assert [value for _, value in token.top] == pytest.approx(expected[best], abs=2e-4)


def test_ranks_are_places_in_the_order_of_all_log_probabilities(model, batch):
    tokens = model.tokenizer.encode(TEXT)
    runner, parts = PromptLogprobsRunner(model), []
    runner.submit("a", tokens, 20)
    while runner.has_work:
        parts.append(runner.step()[1].rows)
    rows = np.concatenate(parts)
    places = []
    for i, id in enumerate(tokens[1:]):
        with model.start_session() as session:
            session.feed_prompt(tokens[: i + 1])
            places.append(1 + np.argsort(-session.last_logits, kind="stable").tolist().index(id))
    assert token_ranks(rows) == places
    for token, place in zip(tokens_with_logprobs(tokens, rows), places, strict=True):
        likeliest = [id for id, _ in token.top]
        assert (likeliest.index(token.id) + 1 == place) if place <= 20 else token.id not in likeliest


def test_computed_prompt_is_reused_by_the_next_session(model):
    tokens = model.tokenizer.encode("A dog ran to the big red house")
    assert len(logprobs(model, tokens)) == len(tokens) - 1
    assert model.prefix.match(array("i", [*tokens, 5])).n == len(tokens)
    model.scheduler().check()


def test_prompt_that_yielded_its_cells_gives_the_same_result(model, batch):
    tokens = model.tokenizer.encode(TEXT)
    expected = logprobs(model, tokens, top=1)
    runner, parts = PromptLogprobsRunner(model), []
    runner.submit("a", tokens, 1)
    while runner.has_work:
        parts.append(runner.step()[1].rows)
        model.prefix.evict(model.pool.n_cells)
        runner.yield_cells(model.pool.n_cells)
        model.prefix.evict(len(parts) % 7)
        model.scheduler().check()
    actual = tokens_with_logprobs(tokens, np.concatenate(parts))
    assert [token.id for token in actual] == [token.id for token in expected]
    assert [t.logprob for t in actual] == pytest.approx([t.logprob for t in expected], abs=2e-4)


def test_streams_come_first_and_a_text_that_never_fits_fails(model):
    model.prefix.evict(model.pool.n_cells)
    cells = model.pool.alloc(80)
    try:
        runner = PromptLogprobsRunner(model)
        runner.submit("a", model.tokenizer.encode(TEXT))
        assert runner.step(reserve=2) is None
        job, error = runner.step()
        assert (job, type(error), runner.has_work) == ("a", OutOfMemoryError, False)
    finally:
        model.pool.free(cells)
    model.scheduler().check()


def test_logits_that_are_not_finite_leave_nothing_in_the_cache(model, monkeypatch):
    tokens = model.tokenizer.encode("The sun was very hot and the bird was sad")
    broken = np.full(model.hp.n_vocab, np.nan, np.float32)

    class Broken:
        forward, clear = model.runner.forward, model.runner.clear

        def logits(self, i):
            return broken

    monkeypatch.setattr(model, "runner", Broken())
    with pytest.raises(EngineError, match="not finite"):
        logprobs(model, tokens)
    assert model.prefix.match(array("i", tokens)).n <= 1
    monkeypatch.undo()
    model.scheduler().check()


@pytest.mark.parametrize(
    ("tokens", "error"),
    [([], ConfigError), ([5], ConfigError), ([5, 10**6], ConfigError), ([5] * 65, ContextOverflowError)],
)
def test_a_prompt_without_log_probabilities_is_refused(model, tokens, error):
    with pytest.raises(error):
        logprobs(model, tokens)


def test_equal_logits_are_ranked_by_id():
    row = np.array([0, 3, 3, 1, 3, 2], np.float32)
    assert most_likely(row, 2).tolist() == [1, 2]
    assert most_likely(row, 4).tolist() == [1, 2, 4, 5]
    assert most_likely(row, 99).tolist() == [1, 2, 4, 5, 3, 0]
    assert most_likely(row, 0).tolist() == []
    assert [rank(row, id) for id in (1, 2, 4, 5, 3, 0)] == [1, 2, 3, 4, 5, 6]
