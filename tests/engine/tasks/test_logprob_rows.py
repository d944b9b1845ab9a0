"""Reading rows of log-probabilities; tests/engine/tasks/test_prompt_logprobs.py reads those of a model."""

from __future__ import annotations

import numpy as np

from engine.tasks.logprob_rows import token_ranks, tokens_with_logprobs


def test_rows_become_the_tokens_after_the_first():
    rows = np.array([[-0.5, 1, 7, -0.5, 8, -1.5], [-3.0, 12, 4, -0.25, 9, -2.0]])
    first, second = tokens_with_logprobs([3, 7, 5], rows)
    assert (first.id, first.logprob, first.top) == (7, -0.5, [(7, -0.5), (8, -1.5)])
    assert (second.id, second.logprob, second.top) == (5, -3.0, [(4, -0.25), (9, -2.0)])
    assert token_ranks(rows) == [1, 12]
