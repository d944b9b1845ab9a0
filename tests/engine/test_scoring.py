"""Log-probabilities of a text's own tokens."""

from __future__ import annotations

from array import array

import numpy as np
import pytest

import engine
from engine.errors import ConfigError, ContextOverflowError
from engine.scoring import score
from support.fake_engine import STORIES

PARAMS = engine.ModelParameters(use_gpu="false", context_size=64, parallel=2, n_threads=2)
TEXT = "Once upon a time there was a little cat. She liked to play in the garden"


@pytest.fixture(scope="module")
def model():
    with engine.load(STORIES, PARAMS) as model:
        yield model


def scored(model, tokens, **options):
    return [token for batch in score(model, tokens, **options) for token in batch]


@pytest.mark.parametrize("n_batch", [1, 5, 512])
def test_they_are_those_of_the_softmax_of_each_position(model, n_batch):
    tokens = model.tokenizer.encode(TEXT)
    found = scored(model, tokens, top=3, n_batch=n_batch)
    assert [token.id for token in found] == tokens[1:]
    for i, token in enumerate(found):
        with model.start_session() as session:
            session.feed_prompt(tokens[: i + 1])
            row = session.last_logits.astype(np.float64)
        expected = row - row.max() - np.log(np.exp(row - row.max()).sum())
        assert token.logprob == pytest.approx(expected[token.id], abs=2e-4)
        best = np.argsort(-expected, kind="stable")[:3]
        assert [id for id, _ in token.top] == best.tolist()
        assert [value for _, value in token.top] == pytest.approx(expected[best], abs=2e-4)


def test_what_was_computed_is_found_by_the_next_session(model):
    tokens = model.tokenizer.encode("A dog ran to the big red house")
    free = model.pool.n_free
    assert len(scored(model, tokens)) == len(tokens) - 1
    assert model.prefix.match(array("i", [*tokens, 5])).n == len(tokens)
    assert model.pool.n_free >= free - len(tokens)
    model.scheduler().check()


def test_one_that_is_given_up_leaves_nothing(model):
    tokens = model.tokenizer.encode("The sun was very hot and the bird was sad")
    batches = score(model, tokens, n_batch=4)
    next(batches)
    batches.close()
    assert model.prefix.match(array("i", tokens)).n <= 1
    model.scheduler().check()


@pytest.mark.parametrize(
    ("tokens", "error"), [([], ConfigError), ([10**6], ConfigError), ([5] * 65, ContextOverflowError)]
)
def test_what_cannot_be_scored_is_refused(model, tokens, error):
    with pytest.raises(error):
        scored(model, tokens)


def test_equal_logits_go_by_id():
    from engine.scoring import _most_likely

    row = np.array([0, 3, 3, 1, 3, 2], np.float32)
    assert _most_likely(row, 2).tolist() == [1, 2]
    assert _most_likely(row, 4).tolist() == [1, 2, 4, 5]
    assert _most_likely(row, 99).tolist() == [1, 2, 4, 5, 3, 0]
    assert _most_likely(row, 0).tolist() == []
