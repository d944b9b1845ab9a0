"""A request's limits, its end, and what is reported of its cost."""

from __future__ import annotations

from typing import Any

import pytest

from engine.cache.cell_pool import CellPool
from engine.config import SchedulerConfig
from engine.errors import ConfigError, ContextOverflowError
from engine.scheduler.sequence import ScheduledSequence, check_request
from engine.types import FinishReason, InferenceParameters, Request

EOG, STOP = 0, 7
CONFIG = SchedulerConfig(n_ctx=10, max_batch_tokens=16, eog_ids=frozenset({EOG}))


SHIFTING = SchedulerConfig(n_ctx=10, max_batch_tokens=16, eog_ids=frozenset({EOG}), context_shift=True)


def sequence(generated: list[int], long_after: int = 0, **params: Any) -> ScheduledSequence:
    return new(CONFIG, generated, long_after, **params)


def new(
    config: SchedulerConfig, generated: list[int], long_after: int = 0, n_keep: int = 0, **params: Any
) -> ScheduledSequence:
    request = Request(
        id="a",
        prompt=[1, 2, 3],
        generated=generated,
        n_batch=512,
        params=InferenceParameters(**params),
        n_keep=n_keep,
    )
    return ScheduledSequence(
        request, CellPool(16), None, config, arrival=1, now=2.0, original_context_length=long_after
    )


@pytest.mark.parametrize(
    ("generated", "params", "reason"),
    [
        ([5], {}, None),
        ([5, EOG], {}, FinishReason.STOP),
        ([5, EOG], {"ignore_eos": True}, None),
        ([5, EOG], {"min_tokens": 2}, None),
        ([5, 6, EOG], {"min_tokens": 2}, FinishReason.STOP),
        ([5, STOP], {"stop_token_ids": (STOP,)}, FinishReason.STOP),
        ([5, STOP], {"stop_token_ids": (STOP,), "ignore_eos": True}, FinishReason.STOP),
        ([5, 6], {"max_tokens": 2}, FinishReason.LENGTH),
        ([5, EOG], {"max_tokens": 2}, FinishReason.STOP),
        ([5] * 6, {}, None),
        ([5] * 7, {}, FinishReason.LENGTH),
        ([5] * 7, {"max_tokens": 100}, FinishReason.LENGTH),
    ],
)
def test_finish_reason_follows_tokens_and_limits(
    generated: list[int], params: dict[str, Any], reason: FinishReason | None
) -> None:
    assert sequence(generated, **params).finish_reason is reason


def test_a_full_context_shifts_before_the_next_token() -> None:
    one = new(SHIFTING, [11, 12, 13, 14, 15, 16])
    one.tokens.append(17)
    assert one.finish_reason is None
    one.refit()
    assert one.tokens.tolist() == [12, 13, 14, 15, 16, 17]  # half of nine gave way
    assert (one.n_dropped, one.n_generated, one.n_chunked, one.n_end) == (4, 7, 6, 10)


@pytest.mark.parametrize(
    ("n_keep", "left"),
    [
        (2, [1, 2, 13, 14, 15, 16, 17]),
        (6, [1, 2, 3, 11, 12, 13, 15, 16, 17]),
        (99, [1, 2, 3, 11, 12, 13, 15, 16, 17]),  # at least four tokens do not stay
    ],
)
def test_context_shift_keeps_the_first_tokens(n_keep: int, left: list[int]) -> None:
    one = new(SHIFTING, [11, 12, 13, 14, 15, 16, 17], n_keep=n_keep)
    assert one.tokens.tolist() == left


def test_resumed_stream_has_the_same_shifted_context() -> None:
    one, tokens = new(SHIFTING, []), list(range(11, 60))
    for i, token in enumerate(tokens):
        one.refit()
        again = new(SHIFTING, tokens[:i])
        again.refit()
        assert (again.tokens, again.n_dropped, again.n_generated) == (one.tokens, one.n_dropped, i)
        one.tokens.append(token)


@pytest.mark.parametrize(
    ("generated", "params", "reason"),
    [
        ([5] * 7, {}, None),
        ([5] * 50, {}, None),
        ([5] * 50, {"max_tokens": 50}, FinishReason.LENGTH),
        ([5] * 49, {"max_tokens": 50}, None),
        ([5] * 7, {"max_tokens": 7}, FinishReason.LENGTH),
        ([5] * 49 + [EOG], {}, FinishReason.STOP),
        ([5] * 49 + [EOG], {"min_tokens": 50}, None),
    ],
)
def test_finish_reason_where_contexts_shift(
    generated: list[int], params: dict[str, Any], reason: FinishReason | None
) -> None:
    assert new(SHIFTING, generated, **params).finish_reason is reason


def test_n_batch_is_clamped_to_the_largest_batch() -> None:
    assert sequence([]).n_batch == 16


def test_n_chunked_includes_what_a_long_sequence_recomputes() -> None:
    one = sequence([4, 4, 4], long_after=4)
    assert one.n_chunked == 3
    one.attach()
    assert (one.uses_long_rope, one.n_chunked) == (True, 5)


def test_timings_split_queue_prefill_and_decode() -> None:
    one = sequence([])
    one.started_at, one.first_token_at, one.cached_n = 2.5, 3.5, 1
    one.tokens.extend([8, 9])
    timings = one.timings(now=5.5)
    assert (timings.queue_ms, timings.prompt_ms, timings.predicted_ms) == (500.0, 1000.0, 2000.0)
    assert (timings.prompt_n, timings.cached_n, timings.predicted_n, timings.n_batch) == (2, 1, 2, 16)


def test_timings_before_the_start_count_as_queueing() -> None:
    timings = sequence([]).timings(now=3.0)
    assert (timings.queue_ms, timings.prompt_ms, timings.predicted_ms) == (1000.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"prompt": []}, ConfigError, "the prompt is empty"),
        ({"n_batch": 0}, ConfigError, "n_batch is 0"),
        ({"prompt": [1, 40]}, ConfigError, "token id 40"),
        ({"generated": [-1]}, ConfigError, "token id -1"),
        ({"prompt": [1] * 10}, ContextOverflowError, "10 tokens"),
    ],
)
def test_check_request_refuses_impossible_requests(
    fields: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        check_request(Request(**{"id": "a", "prompt": [1], **fields}), n_vocab=40, n_ctx=10)
