"""The Python interface's session: feed, look, generate, go back, close."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import numpy as np
import pytest

from engine.cache.cell_pool import CellPool
from engine.cache.prefix_cache import PrefixCache
from engine.config import InferenceSessionConfig, ModelParameters, SchedulerConfig
from engine.errors import ConfigError, ContextOverflowError, OutOfMemoryError, SessionClosedError
from engine.scheduler.scheduler import Scheduler
from engine.session import GeneratedToken, InferenceSession
from engine.types import InferenceParameters
from support.fakes.runner import EOG, N_VOCAB, FakeRunner, FakeSampler, Model, drain, logits_of, request

MODEL = Model()
BOS = 1
PROMPT = [5, 6, 7, 8, 9, 10, 11]


class Letters:
    """A tokenizer: a to z are 2 to 27, and 28 to 39 are single bytes of é, alternating."""

    eog_ids = frozenset({EOG})

    def encode(self, text: str, add_special: bool = True, parse_special: bool = False) -> list[int]:
        if parse_special and text == "<bos>":
            return [BOS]
        return [BOS] * add_special + [ord(letter) - ord("a") + 2 for letter in text]

    def token_bytes(self, token: int, *, special: bool = False) -> bytes:
        if token in (EOG, BOS):
            return b"</s>" if special else b""
        return "é".encode()[token % 2 :][:1] if token >= 28 else bytes([token - 2 + ord("a")])


class FakeModel:
    """What a session sees of a model."""

    def __init__(
        self, n_cells: int = 128, n_ctx: int = 64, max_batch_tokens: int = 16, context_shift: bool = False
    ) -> None:
        self.runner = FakeRunner(n_cells, max_batch_tokens)
        self.pool = CellPool(n_cells)
        self.prefix = PrefixCache(self.pool)
        self.tokenizer = Letters()
        self.n_ctx, self.max_batch_tokens, self.closed = n_ctx, max_batch_tokens, False
        self.threads: int | None = 4
        self.params, self.adapters = ModelParameters(context_shift=context_shift), ()

    def set_threads(self, n: int | None) -> None:
        self.threads = 4 if n is None else n

    def session(self, **config: object) -> InferenceSession:
        return InferenceSession(self, InferenceSessionConfig(**config), sampler_factory=FakeSampler)  # type: ignore[arg-type]

    def chunks(self) -> list[tuple[int, int]]:
        return [(row.n_past, len(row.tokens)) for batch in self.runner.batches for row in batch]


def greedy(max_tokens: int | None = 8, **kwargs: object) -> InferenceParameters:
    return InferenceParameters(temperature=0.0, max_tokens=max_tokens, **kwargs)  # type: ignore[arg-type]


def ids(tokens: Iterator[GeneratedToken]) -> list[int]:
    return [token.id for token in tokens]


def expected(prompt: list[int], params: InferenceParameters, n_ctx: int = 64) -> list[int]:
    return MODEL.continuation(prompt, params, n_ctx)[0]


@pytest.mark.parametrize("n_batch", [1, 3, 7, 8, 512])
def test_the_text_does_not_depend_on_n_batch(n_batch: int) -> None:
    model = FakeModel()
    with model.session(n_batch=n_batch) as session:
        session.feed_prompt(PROMPT)
        assert len(model.chunks()) == -(-7 // min(n_batch, 16))
        assert max(n for _, n in model.chunks()) <= n_batch
        assert ids(session.infer(greedy())) == expected(PROMPT, greedy())


def test_first_text_gets_the_bos_token() -> None:
    session = FakeModel().session()
    session.feed_prompt("abc")
    session.feed_prompt("de")
    session.feed_prompt("<bos>", parse_special=True)
    assert session.tokens == [BOS, 2, 3, 4, 5, 6, BOS]
    session.feed_prompt("")
    assert session.tokens == [BOS, 2, 3, 4, 5, 6, BOS]


def test_the_logits_match_those_of_the_last_token() -> None:
    model = FakeModel()
    session = model.session()
    session.feed_prompt(PROMPT[:4])
    session.feed_prompt(PROMPT[4:])
    logits = session.last_logits
    assert logits.dtype == np.float32
    assert logits.tolist() == list(logits_of(MODEL.state(PROMPT)))
    logits[:] = 0  # a copy
    other = model.session()
    other.feed_prompt([1, 2, 3])
    assert session.last_logits.tolist() == list(logits_of(MODEL.state(PROMPT)))
    text = ids(session.infer(greedy(3)))
    assert session.last_logits.tolist() == list(logits_of(MODEL.state(PROMPT + text)))


def test_generated_tokens_are_part_of_the_session() -> None:
    session = FakeModel().session()
    session.feed_prompt(PROMPT)
    first = ids(session.infer(greedy(5)))
    assert session.tokens == PROMPT + first
    assert session.n_past == len(PROMPT) + 4  # the last one is computed when it is needed
    second = ids(session.infer(greedy(5)))
    assert first + second == expected(PROMPT, greedy(10))
    session.feed_prompt([3, 4])
    assert session.n_past == len(session.tokens) == len(PROMPT) + 12
    assert ids(session.infer(greedy(4))) == expected([*PROMPT, *first, *second, 3, 4], greedy(4))


def test_generation_may_be_left_at_any_token() -> None:
    session = FakeModel().session()
    session.feed_prompt(PROMPT)
    want = expected(PROMPT, greedy())
    for token in session.infer(greedy()):
        if token.id == want[2]:
            break
    assert session.tokens == PROMPT + want[: want.index(want[2]) + 1]


def test_text_comes_in_whole_characters() -> None:
    class Script(FakeSampler):
        script = iter([2, 28, 29, EOG, 28, 3, 28])

        def sample(self, logits: memoryview, mask: memoryview | None = None):  # type: ignore[no-untyped-def]
            return super().sample(logits, mask).__class__(id=next(self.script), logprob=-1.5)

    session = InferenceSession(FakeModel(), sampler_factory=Script)
    session.feed_prompt(PROMPT)
    assert [*session.infer(greedy())] == [(2, "a", -1.5), (28, "", -1.5), (29, "é", -1.5), (EOG, "", -1.5)]
    assert [token.text for token in session.infer(greedy(3))] == ["", "\ufffdb", "\ufffd"]


def test_generation_ends_at_stop_tokens_and_limits() -> None:
    stopping = next(
        [n] * 5
        for n in range(1, N_VOCAB)
        if EOG in expected([n] * 5, greedy(40)) and EOG not in expected([n] * 5, greedy(2))
    )
    for params in (
        greedy(40),
        greedy(40, ignore_eos=True),
        greedy(40, min_tokens=30),
        greedy(40, stop_token_ids=(expected(stopping, greedy(2))[1],)),
        greedy(0),
        greedy(None),
        InferenceParameters(seed=4, max_tokens=12),
    ):
        session = FakeModel().session()
        session.feed_prompt(stopping)
        assert ids(session.infer(params)) == expected(stopping, params)


def test_full_context_ends_the_generation() -> None:
    session = FakeModel(n_ctx=12).session()
    session.feed_prompt(PROMPT)
    assert len(ids(session.infer(greedy(None, ignore_eos=True)))) == 5
    assert ids(session.infer(greedy())) == []
    with pytest.raises(
        ContextOverflowError, match="the prompt has 13 tokens, which exceeds the available context size of 12"
    ):
        session.feed_prompt([1])
    assert len(session.tokens) == 12
    session.rewind(5)
    session.feed_prompt([1, 2, 3, 4, 5])
    assert session.last_logits.tolist() == list(logits_of(MODEL.state([*PROMPT, 1, 2, 3, 4, 5])))


@pytest.mark.parametrize(
    ("n_keep", "n_discard", "n_kept"), [(0, 0, 0), (3, 0, 3), (-1, 0, 7), (99, 0, 99), (2, 4, 2), (2, 99, 2)]
)
def test_full_context_shifts_like_that_of_a_request(n_keep: int, n_discard: int, n_kept: int) -> None:
    params = greedy(60, ignore_eos=True)
    model = FakeModel(n_ctx=12, context_shift=True)
    with model.session(n_keep=n_keep, n_discard=n_discard) as session:
        session.feed_prompt(PROMPT)
        text = ids(session.infer(params))
        assert text == MODEL.shifted(PROMPT, params, 12, n_kept, n_discard)[0]
        assert len(session.tokens) + session.n_dropped == len(PROMPT) + 60
        assert session.tokens[: min(n_kept, 7)] == PROMPT[:n_kept]
        assert session.last_logits.tolist() == list(logits_of(MODEL.state(session.tokens)))
    assert model.pool.n_free + model.prefix.n_cells == model.pool.n_cells


def test_earlier_tokens_yield_to_new_ones() -> None:
    model = FakeModel(n_ctx=12, context_shift=True)
    session = model.session(n_keep=2)
    session.feed_prompt(PROMPT)
    session.feed_prompt([20, 21, 22, 23, 24, 25])
    left = [5, 6, 11, 20, 21, 22, 23, 24, 25]  # half of nine gave way
    assert (session.tokens, session.n_dropped) == (left, 4)
    assert session.last_logits.tolist() == list(logits_of(MODEL.state(left)))
    with pytest.raises(ContextOverflowError, match=r"18 tokens, which exceeds .* 12"):
        session.feed_prompt([7] * 9)
    assert (session.tokens, session.n_dropped) == (left, 4)
    model.runner.fail_next = RuntimeError("lost")
    with pytest.raises(RuntimeError, match="lost"):
        session.feed_prompt([7] * 5)
    assert (session.tokens, session.n_dropped) == (left, 4)
    assert session.last_logits.tolist() == list(logits_of(MODEL.state(left)))


@pytest.mark.parametrize("cache_prompt", [True, False])
@pytest.mark.parametrize("n", [0, 1, 3, 6])
def test_rewind_leaves_the_tokens_before(n: int, cache_prompt: bool) -> None:
    model = FakeModel()
    for _ in range(2):  # the second time on cached cells, also into their middle
        session = model.session(cache_prompt=cache_prompt)
        session.feed_prompt(PROMPT)
        session.rewind(n)
        left = PROMPT[: 7 - n]
        assert session.tokens == left
        assert session.last_logits.tolist() == list(logits_of(MODEL.state(left)))
        assert ids(session.infer(greedy(6))) == expected(left, greedy(6))
        session.rewind(4)
        session.feed_prompt([20, 21])
        now = [*left, *expected(left, greedy(6))[:-4], 20, 21]
        assert session.tokens == now
        assert ids(session.infer(greedy(3))) == expected(now, greedy(3))
        model.prefix.check()
        session.close()
        assert model.prefix.n_evictable == model.prefix.n_cells == model.pool.n_cells - model.pool.n_free
    assert (model.prefix.n_cells > 0) == cache_prompt


def test_rewind_of_everything_empties_the_session_and_more_is_refused() -> None:
    session = FakeModel().session()
    session.feed_prompt(PROMPT)
    with pytest.raises(ConfigError, match="cannot rewind 8 tokens: the session has 7"):
        session.rewind(8)
    with pytest.raises(ConfigError, match="cannot rewind -1"):
        session.rewind(-1)
    session.rewind(7)
    assert (session.tokens, session.n_past) == ([], 0)
    with pytest.raises(ConfigError, match="feed a prompt"):
        _ = session.last_logits
    session.feed_prompt([3])
    assert ids(session.infer(greedy(3))) == expected([3], greedy(3))


def test_sessions_share_prefixes_with_each_other_and_with_a_scheduler() -> None:
    model = FakeModel()
    a, b = model.session(), model.session()
    a.feed_prompt(PROMPT)
    b.feed_prompt([*PROMPT, 20])
    assert model.chunks() == [(0, 7), (7, 1)]
    config = SchedulerConfig(parallel=2, n_ctx=64, max_batch_tokens=16, eog_ids=frozenset({EOG}))
    scheduler = Scheduler(model.runner, model.pool, config, FakeSampler, prefix=model.prefix)
    scheduler.submit(request("s", [*PROMPT, 20, 21]))
    scheduler.step()
    scheduler.check([a._sequence, b._sequence])
    assert model.chunks()[-1] == (8, 1)
    for session in (a, b):
        session.close()
    outcome = drain(scheduler)
    assert len(outcome.tokens["s"]) == 7
    assert scheduler.stats().cells_used == 0


def test_without_cache_prompt_nothing_is_shared() -> None:
    model = FakeModel()
    for _ in range(2):
        with model.session(cache_prompt=False) as session:
            session.feed_prompt(PROMPT)
    assert model.chunks() == [(0, 7), (0, 7)]
    assert model.pool.n_free == model.pool.n_cells


def test_threads_are_set_for_each_computation() -> None:
    model = FakeModel()
    two, default = model.session(n_threads=2), model.session()
    two.feed_prompt([1])
    assert model.threads == 2
    default.feed_prompt([1])
    assert model.threads == 4


def test_session_without_free_cells_raises_out_of_memory() -> None:
    model = FakeModel(n_cells=16, n_ctx=16)
    a, b = model.session(), model.session()
    a.feed_prompt(PROMPT)
    with pytest.raises(OutOfMemoryError, match="10 cells of the KV cache are needed and 9 of 16 are free"):
        b.feed_prompt([3] * 10)
    assert b.tokens == []
    b.feed_prompt([3] * 9)
    with pytest.raises(OutOfMemoryError, match="1 cells"):
        ids(a.infer(greedy()))
    b.close()
    assert a.tokens == PROMPT + expected(PROMPT, greedy(1))
    assert ids(a.infer(greedy(4))) == expected(PROMPT, greedy(5))[1:]


def test_a_failing_computation_leaves_the_session_as_it_was() -> None:
    model = FakeModel()
    session = model.session(n_batch=4)
    session.feed_prompt(PROMPT)
    forward, calls = model.runner.forward, iter([False, True])

    def fails_in_the_second_chunk(rows):  # type: ignore[no-untyped-def]
        if next(calls, False):
            model.runner.fail_next = RuntimeError("lost")
        return forward(rows)

    model.runner.forward = fails_in_the_second_chunk  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="lost"):
        session.feed_prompt([1] * 6)
    assert (session.tokens, session.n_past) == (PROMPT, 7)
    assert session.last_logits.tolist() == list(logits_of(MODEL.state(PROMPT)))
    assert ids(session.infer(greedy())) == expected(PROMPT, greedy())


def test_invalid_values_are_refused() -> None:
    model = FakeModel()
    with pytest.raises(ConfigError, match="n_batch is 0"):
        model.session(n_batch=0)
    session = model.session()
    with pytest.raises(ConfigError, match="the prompt is empty"):
        session.feed_prompt([])
    with pytest.raises(ConfigError, match="feed a prompt"):
        session.infer()
    for token in (-1, N_VOCAB):
        with pytest.raises(ConfigError, match=f"token id {token} is outside"):
            session.feed_prompt([1, token])
    assert session.tokens == []


@pytest.mark.parametrize("what", ["session", "model"])
def test_infer_after_closing_is_an_error(what: str) -> None:
    model = FakeModel()
    session = model.session()
    session.feed_prompt(PROMPT)
    stream = session.infer(greedy())
    next(stream)
    if what == "session":
        session.close()
        session.close()
        assert model.prefix.n_evictable == model.prefix.n_cells
    else:
        model.closed = True
    for use in (
        lambda: session.feed_prompt("abc"),
        lambda: session.infer(),
        lambda: session.rewind(1),
        lambda: session.last_logits,
        lambda: session.__enter__(),
        lambda: next(stream),
    ):
        with pytest.raises(SessionClosedError, match="was closed"):
            use()
    session.close()


def test_dropped_session_frees_its_cells() -> None:
    model = FakeModel()
    session = model.session(cache_prompt=False)
    session.feed_prompt(PROMPT)
    assert model.pool.n_free == model.pool.n_cells - 7
    del session
    gc.collect()
    assert model.pool.n_free == model.pool.n_cells
