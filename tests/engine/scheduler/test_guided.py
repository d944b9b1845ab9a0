"""Sessions with constraints and reasoning blocks among others, on the fake runner."""

from __future__ import annotations

import random
import re
from array import array
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import msgspec
import pytest

from engine.constraint.compiler import ConstraintCompiler, GrammarVocabulary
from engine.constraint.guide import OutputGuides
from engine.constraint.unique_names import TokenMask
from engine.errors import ConfigError, OutOfMemoryError
from engine.scheduler import scheduler as scheduler_module
from engine.types import Constraint, FinishReason, InferenceParameters, Request, Thinking
from support.fakes.drafts import draft_at_random
from support.fakes.runner import EOG, N_VOCAB, Model, Outcome, drain, make_scheduler, request, states

MODEL = Model()
OPEN, CLOSE = 1, 2  # the marks of reasoning: tokens without text
LETTERS = b"abcdefghijklmnopqrstuvwxyz"
TOKENS = [b"", b"", b"", *(bytes([c]) for c in LETTERS), b"ab", b"ba", b"{", b"}", b'"', b":", b" "]
TOKENS += [b""] * (N_VOCAB - len(TOKENS))
NAMES = [b"<eog>", b"<think>", b"</think>", *TOKENS[3:]]
PROMPT = [5, 6, 7, 8, 9]


@pytest.fixture
def compiler() -> Iterator[ConstraintCompiler]:
    actual = ConstraintCompiler(GrammarVocabulary(NAMES, [0, 1, 2], [EOG], N_VOCAB))
    yield actual
    actual.close()


def guides(compiler: Any) -> OutputGuides:
    return OutputGuides(compiler, TOKENS.__getitem__, N_VOCAB, {EOG})


def text(tokens: list[int]) -> str:
    return b"".join(TOKENS[token] for token in tokens).decode()


def params(n: int | None = 12, **fields: Any) -> InferenceParameters:
    return InferenceParameters(max_tokens=n, temperature=fields.pop("temperature", 0.0), **fields)


def guided(id: str, pattern: str, **fields: Any) -> Request:
    fields.setdefault("params", params())
    return request(id, PROMPT, constraint=Constraint("regex", pattern), **fields)


def run(compiler: ConstraintCompiler, *requests: Request, **options: Any) -> Outcome:
    scheduler, _ = make_scheduler(guides=guides(compiler), **options)
    try:
        for one in requests:
            scheduler.submit(one)
        return drain(scheduler)
    finally:
        scheduler.close()


def test_constrained_and_free_sessions_share_a_batch(compiler: ConstraintCompiler) -> None:
    patterns = {"a": "[a-f]{3}", "b": "(ab|ba)+c", "c": "x[yz]*"}
    free = {
        f"f{i}": request(f"f{i}", [3 + i, 9, 12], params=params(temperature=1.0, seed=i)) for i in range(3)
    }
    outcome = run(
        compiler,
        free["f0"],
        *(
            guided(id, pattern, params=params(20, temperature=1.0, seed=7))
            for id, pattern in patterns.items()
        ),
        free["f1"],
        free["f2"],
    )
    for id, one in free.items():
        assert (outcome.tokens[id], outcome.finish(id)) == MODEL.continuation(one.prompt, one.params, 64)
    for id, pattern in patterns.items():
        ended = outcome.finish(id) is FinishReason.STOP
        content = text(outcome.tokens[id])
        assert re.fullmatch(pattern, content) if ended else len(outcome.tokens[id]) == 20, (id, content)
    assert outcome.finish("a") is FinishReason.STOP


def test_constrained_session_ends_where_nothing_can_follow(compiler: ConstraintCompiler) -> None:
    outcome = run(compiler, guided("a", "abc"))
    assert text(outcome.tokens["a"]) == "abc"
    assert EOG not in outcome.tokens["a"]
    assert outcome.finish("a") is FinishReason.STOP
    assert outcome.last["a"].timings.predicted_n == len(outcome.tokens["a"])


def test_constrained_session_may_end_where_the_text_is_complete(compiler: ConstraintCompiler) -> None:
    """The model ends some texts at once, and goes on with others, as it likes."""
    ends = set()
    for seed in range(40):
        one = guided("a", "x{2,}", params=params(3, temperature=1.0, seed=seed))
        outcome = run(compiler, one)
        tokens = outcome.tokens["a"]
        assert EOG not in tokens[:-1]
        assert len(text(tokens)) >= 2
        ends.add(outcome.finish("a"))
    assert ends == {FinishReason.STOP, FinishReason.LENGTH}


def test_max_tokens_ends_a_constrained_session_early(compiler: ConstraintCompiler) -> None:
    outcome = run(compiler, guided("a", "abcdef", params=params(2)))
    assert outcome.finish("a") is FinishReason.LENGTH
    assert "abcdef".startswith(text(outcome.tokens["a"]))


@pytest.mark.parametrize("pattern", ["abc", "", "(ab)?"])
@pytest.mark.parametrize("fields", [{"ignore_eos": True}, {"min_tokens": 9}])
def test_min_tokens_does_not_extend_a_text_that_nothing_can_follow(
    compiler: ConstraintCompiler, pattern: str, fields: dict[str, Any]
) -> None:
    outcome = run(compiler, guided("a", pattern, params=params(**fields)))
    assert outcome.finish("a") is FinishReason.STOP
    assert re.fullmatch(pattern, text(outcome.tokens["a"]))
    assert EOG not in outcome.tokens["a"]
    if pattern == "(ab)?":
        assert text(outcome.tokens["a"]) == "ab"


def test_min_tokens_extends_a_text_that_can_continue(compiler: ConstraintCompiler) -> None:
    outcome = run(compiler, guided("a", "[a-z]*", params=params(9, ignore_eos=True)))
    assert outcome.finish("a") is FinishReason.LENGTH
    assert EOG not in outcome.tokens["a"]


class Scripted:
    """A matcher that fails: at a mask, at a token, or because no token may come."""

    may_stop = must_stop = False

    def __init__(self, fails: str) -> None:
        self.fails = fails

    def fill(self, mask: TokenMask) -> None:
        if self.fails == "fill":
            raise ConfigError("too complex")
        mask[:] = array("I", [0xFFFFFFFF if self.fails == "commit" else 0]) * len(mask)

    def commit(self, token: int) -> None:
        raise ConfigError("too complex")

    def accepts(self, token: int) -> bool:
        return True


class Pending:
    """A compiler whose work is done by the test."""

    n_words = (N_VOCAB + 31) // 32

    def __init__(self) -> None:
        self.futures: list[Future[Any]] = []

    def submit(self, constraint: Constraint) -> Future[Any]:
        self.futures.append(Future())
        return self.futures[-1]


@pytest.mark.parametrize("fails", ["fill", "commit", "nothing"])
def test_a_failing_constraint_ends_its_session_alone(fails: str) -> None:
    pending = Pending()
    scheduler, runner = make_scheduler(guides=guides(pending))
    scheduler.submit(guided("a", "x"))
    scheduler.submit(request("b", PROMPT, params=params()))
    pending.futures[0].set_result(Scripted(fails))
    outcome = drain(scheduler)
    scheduler.close()
    assert outcome.finish("a") is FinishReason.ERROR
    assert outcome.last["a"].unmet
    assert outcome.last["a"].error == ("every token is banned" if fails == "nothing" else "too complex")
    assert outcome.tokens["b"] == MODEL.continuation(PROMPT, params(), 64)[0]
    assert not outcome.last["b"].unmet
    assert scheduler.pool.n_free + scheduler.prefix.n_evictable == scheduler.pool.n_cells
    assert not any(cell is None for cell in runner.cells[:5])  # what was computed is sound


def test_while_its_constraint_compiles_a_session_waits_and_others_run() -> None:
    pending = Pending()
    scheduler, _ = make_scheduler(guides=guides(pending))
    scheduler.submit(guided("a", "x"))
    scheduler.submit(request("b", PROMPT, params=params(30)))
    outcome = Outcome()
    for _ in range(5):
        outcome.add(scheduler.step())
    assert outcome.tokens["b"]
    assert "a" not in outcome.tokens
    assert scheduler.stats().waiting == 1
    assert list(states(scheduler).values()) == ["compiling", "decode"]
    assert scheduler.has_work
    pending.futures[0].set_exception(ConfigError("the grammar has no rule 'root'"))
    drain(scheduler, outcome)
    assert outcome.last["a"].error == "the grammar has no rule 'root'"
    assert outcome.last["a"].unmet
    scheduler.close()


def test_cancel_pause_deadline_and_timeout_while_compiling_are_handled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pending = Pending()
    scheduler, _ = make_scheduler(guides=guides(pending))
    for id in ("cancelled", "paused", "late"):
        scheduler.submit(guided(id, "x"))
    scheduler.submit(guided("expired", "x", deadline_ms=1.0))
    assert scheduler.cancel("cancelled")
    assert scheduler.pause("paused")
    outcome = Outcome()
    outcome.add(scheduler.step())
    assert outcome.finish("cancelled") is FinishReason.CANCELLED
    assert outcome.finish("expired") is FinishReason.TIMEOUT
    assert scheduler.resume("paused")
    monkeypatch.setattr(scheduler_module, "COMPILE_S", 0.0)
    pending.futures[1].set_result(Scripted("fill"))
    drain(scheduler, outcome)
    assert outcome.last["paused"].error == "too complex"
    assert "takes longer" in (outcome.last["late"].error or "")
    scheduler.close()


@pytest.mark.parametrize("n", range(1, 6))
def test_a_resumed_session_continues_as_if_uninterrupted(compiler: ConstraintCompiler, n: int) -> None:
    fields = {"params": params(10, temperature=1.0, seed=3)}
    whole = run(compiler, guided("a", "[a-z]{4,}(ab|ba)?", **fields))
    tokens = whole.tokens["a"]
    assert len(tokens) > 5
    again = run(compiler, guided("a", "[a-z]{4,}(ab|ba)?", generated=tokens[:n], **fields))
    assert tokens[:n] + again.tokens["a"] == tokens
    assert again.finish("a") is whole.finish("a")


def test_session_resumed_after_its_last_token_ends(compiler: ConstraintCompiler) -> None:
    tokens = run(compiler, guided("a", "abc")).tokens["a"]
    outcome = run(compiler, guided("a", "abc", generated=tokens))
    assert outcome.finish("a") is FinishReason.STOP
    assert outcome.tokens["a"] == []


def test_session_resumed_with_tokens_outside_the_constraint_fails(compiler: ConstraintCompiler) -> None:
    outcome = run(compiler, guided("a", "abc", generated=[9]))
    assert outcome.finish("a") is FinishReason.ERROR
    assert outcome.last["a"].unmet


def test_preempted_sessions_keep_their_place(compiler: ConstraintCompiler) -> None:
    alone = {
        id: run(compiler, guided(id, "[a-z]{30}", params=params(40, temperature=1.0, seed=i))).tokens[id]
        for i, id in enumerate("abcd")
    }
    requests = [
        guided(id, "[a-z]{30}", params=params(40, temperature=1.0, seed=i), cache_prompt=False)
        for i, id in enumerate("abcd")
    ]
    scheduler, _ = make_scheduler(72, guides=guides(compiler))
    for one in requests:
        scheduler.submit(one)
    outcome = drain(scheduler)
    assert scheduler.stats().preemptions
    assert outcome.tokens == alone
    scheduler.close()


def test_constrained_session_survives_anothers_lack_of_memory(compiler: ConstraintCompiler) -> None:
    scheduler, runner = make_scheduler(guides=guides(compiler))
    scheduler.submit(guided("a", "[a-z]{9}"))
    scheduler.submit(request("b", list(range(3, 30))))
    runner.fail_next = OutOfMemoryError("no room", device="x", needed=1, free=0)
    outcome = drain(scheduler)
    assert outcome.last["b"].out_of_memory
    assert outcome.tokens["a"] == run(compiler, guided("a", "[a-z]{9}")).tokens["a"]
    scheduler.close()


def test_scheduler_without_guides_refuses_constraints() -> None:
    scheduler, _ = make_scheduler()
    with pytest.raises(ConfigError, match="does not support constraints"):
        scheduler.submit(guided("a", "x"))
    with pytest.raises(ConfigError, match="does not support constraints"):
        scheduler.submit(request("a", PROMPT, thinking=Thinking(end=(CLOSE,), opened=True)))
    assert not scheduler.has_work


# ** reasoning **


def thinking(id: str, fields: dict[str, Any], pattern: str | None = None, **more: Any) -> Request:
    more.setdefault("params", params(20, temperature=1.0, seed=1))
    constraint = None if pattern is None else Constraint("regex", pattern)
    return request(id, PROMPT, thinking=Thinking(end=(CLOSE,), **fields), constraint=constraint, **more)


@pytest.mark.parametrize("budget", [0, 1, 5])
def test_a_budget_closes_the_block(compiler: ConstraintCompiler, budget: int) -> None:
    for seed in range(6):
        one = thinking("a", {"opened": True, "budget": budget}, params=params(12, temperature=1.0, seed=seed))
        tokens = run(compiler, one).tokens["a"]
        if EOG not in tokens[: budget + 1]:
            assert CLOSE in tokens[: budget + 1]


def test_a_budget_that_is_not_spent_changes_nothing(compiler: ConstraintCompiler) -> None:
    one = thinking("a", {"opened": True, "budget": 19}, params=params(12, temperature=1.0, seed=2))
    assert run(compiler, one).tokens["a"] == MODEL.continuation(PROMPT, one.params, 64)[0]


def test_constraint_begins_after_the_reasoning_block(compiler: ConstraintCompiler) -> None:
    for seed in range(8):
        fields = {"opened": True, "budget": 4}
        one = thinking("a", fields, "(ab|ba)c", params=params(20, temperature=1.0, seed=seed))
        outcome = run(compiler, one)
        tokens = outcome.tokens["a"]
        end = tokens.index(CLOSE)
        assert EOG not in tokens[:end]
        assert end <= 4
        assert re.fullmatch("(ab|ba)c", text(tokens[end + 1 :]))
        assert outcome.finish("a") is FinishReason.STOP


def test_the_model_may_open_the_block_or_not(compiler: ConstraintCompiler) -> None:
    opened = 0
    for seed in range(60):
        fields = {"start": (OPEN,), "budget": 2}
        one = thinking("a", fields, "[a-e]{3}", params=params(20, temperature=1.0, seed=seed))
        tokens = run(compiler, one).tokens["a"]
        if tokens[0] == OPEN:
            opened += 1
            tokens = tokens[tokens.index(CLOSE) + 1 :]
        assert re.fullmatch("[a-e]{3}", text(tokens))
        assert not {OPEN, CLOSE} & set(tokens)
    assert 0 < opened < 60


def test_resumed_session_continues_inside_its_reasoning_block(compiler: ConstraintCompiler) -> None:
    one = thinking("a", {"opened": True, "budget": 3}, "(ab|ba)[a-d]{3}")
    tokens = run(compiler, one).tokens["a"]
    for n in range(1, len(tokens)):
        one.generated = tokens[:n]
        again = run(compiler, one)
        assert tokens[:n] + again.tokens["a"] == tokens


def test_reasoning_block_that_cannot_be_followed_is_refused(compiler: ConstraintCompiler) -> None:
    scheduler, _ = make_scheduler(guides=guides(compiler))
    with pytest.raises(ConfigError, match="open it"):
        scheduler.submit(thinking("a", {}))
    assert not scheduler.has_work
    scheduler.close()


# ** at random **


@pytest.mark.parametrize("seed", range(6))
def test_constrained_text_beside_other_requests_and_drafts_is_unchanged(
    compiler: ConstraintCompiler, seed: int
) -> None:
    chance = random.Random(seed)
    patterns = ["[a-z]{1,12}", "(ab|ba)*", "[x-z]+", "a{3}|b*", None]
    requests = []
    for i in range(14):
        prompt = [chance.randrange(3, 30) for _ in range(chance.randrange(1, 20))]
        pattern = chance.choice(patterns)
        requests.append(
            request(
                f"r{i}",
                prompt,
                params=params(chance.randrange(1, 25), temperature=1.0, seed=i),
                n_batch=chance.choice([1, 4, 32]),
                constraint=None if pattern is None else Constraint("regex", pattern),
                thinking=chance.choice([None, None, Thinking(end=(CLOSE,), opened=True, budget=3)]),
            )
        )
    together = run(compiler, *requests, n_cells=120)
    for one in requests:
        assert together.tokens[one.id] == run(compiler, one).tokens[one.id], one.id
    scheduler, _ = make_scheduler(120, guides=guides(compiler))
    draft_at_random(scheduler, chance, together.tokens.__getitem__, N_VOCAB)
    for one in requests:
        scheduler.submit(msgspec.structs.replace(one, draft_max=8))
    with_drafts = drain(scheduler)
    scheduler.close()
    assert with_drafts.tokens == together.tokens
    for id, last in together.last.items():
        assert (with_drafts.last[id].finish, with_drafts.last[id].error) == (last.finish, last.error)
    assert 0 < scheduler.stats().draft_accepted_tokens < scheduler.stats().draft_tokens
