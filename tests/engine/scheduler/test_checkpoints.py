"""Chats with a hybrid of 24 layers: what is computed, and that the text is the one without a cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import engine
from engine.types import InferenceParameters, Request
from support.builders.golden import golden
from support.builders.hybrid import hybrid_model
from support.fakes.runner import Outcome, drain
from support.references.answers import GREEDY, answer

PROMPT = [*golden("qwen35").prompt, *golden("lfm2").prompt]  # 300 tokens
INTERVAL = 64


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hybrid_model(tmp_path_factory.mktemp("hybrid") / "model.gguf", 1024)


def load(path: Path, **more: int) -> engine.Model:
    options = {"context_size": 1024, "kv_cells": 2048, "parallel": 4} | more
    params = engine.ModelParameters(
        use_gpu=False, n_threads=1, kv_type="f32", checkpoint_interval=INTERVAL, **options
    )
    return engine.load(path, params)


@pytest.fixture
def model(path: Path) -> Iterator[engine.Model]:
    with load(path) as model:
        yield model


def uncached(model: engine.Model, prompt: Sequence[int]) -> list[int]:
    tokens, timings = answer(model, prompt, cache_prompt=False)
    assert timings.cached_n == 0
    return tokens


def test_model_has_recurrent_and_attention_layers(model: engine.Model) -> None:
    assert model.hp.n_layer == 24
    assert sum(model.hp.recurrent) == 18
    assert sum(map(model.hp.attends, range(24))) == 6


def test_turns_of_a_chat_compute_their_own_tokens_only(model: engine.Model) -> None:
    chat = PROMPT[:200]
    first, timings = answer(model, chat)
    assert timings.cached_n == 0
    for begin in (200, 220, 250):  # the next turns
        chat = [*chat, *first, *PROMPT[begin : begin + 20]]
        first, timings = answer(model, chat)
        assert timings.prompt_n == 21  # the last token of an answer is not computed when it ends
        assert first == uncached(model, chat)


def test_chats_with_one_system_prompt_compute_their_own_messages(model: engine.Model) -> None:
    for i in range(6):
        chat = [*PROMPT[:200], i, *PROMPT[210 + i : 229 + i]]
        tokens, timings = answer(model, chat, boundaries=[200])
        assert timings.prompt_n == (20 if i else 220)
        assert tokens == uncached(model, chat)


def test_a_boundary_close_to_what_is_cached_gets_no_checkpoint(model: engine.Model) -> None:
    assert model.pool.states is not None
    first, _ = answer(model, PROMPT[:100])
    before = model.pool.states.n_checkpoints
    chat = [*PROMPT[:100], *first, *PROMPT[100:150]]
    answer(model, chat, boundaries=[len(chat) - 48, len(chat) - 5])
    assert model.pool.states.n_checkpoints == before + 3  # before the end, the prompt, the answer


def test_an_edited_message_computes_from_the_start_of_its_turn(model: engine.Model) -> None:
    first, _ = answer(model, PROMPT[:150])
    turn = [*PROMPT[:150], *first]
    answer(model, [*turn, *PROMPT[150:200]])
    edited = [*turn, *PROMPT[150:160], *PROMPT[210:240]]
    tokens, timings = answer(model, edited)
    assert timings.prompt_n <= 41
    assert tokens == uncached(model, edited)
    again = [*turn, *PROMPT[150:160], *PROMPT[250:280]]
    tokens, timings = answer(model, again)
    assert timings.prompt_n == 30  # where the last two parted
    assert tokens == uncached(model, again)


def test_a_prompt_that_is_cut_short_computes_at_most_an_interval_more(model: engine.Model) -> None:
    answer(model, PROMPT)
    for n in (280, 201, 150, 66):
        other = [*PROMPT[:n], 9]
        tokens, timings = answer(model, other)
        assert timings.prompt_n <= 1 + INTERVAL
        assert tokens == uncached(model, other)


def test_a_restored_session_continues_without_computing_it_again(path: Path, tmp_path: Path) -> None:
    with load(path) as model, model.start_session() as session:
        session.feed_prompt(PROMPT[:200])
        session.save(tmp_path / "session")
        expected = [token.id for token in session.infer(GREEDY)]
    with load(path) as model, model.restore_session(tmp_path / "session") as session:
        assert session.n_past == 200
        assert [token.id for token in session.infer(GREEDY)] == expected
        session.close()
        _, timings = answer(model, [*PROMPT[:200], *PROMPT[210:220]])
        assert timings.cached_n == 200


def test_cancelled_answer_leaves_its_tokens_cached(model: engine.Model) -> None:
    scheduler, outcome = model.scheduler(), Outcome()
    scheduler.submit(Request(id="x", prompt=PROMPT[:100], params=GREEDY))
    while len(outcome.tokens.get("x", ())) < 5:
        outcome.add(scheduler.step())
    assert scheduler.cancel("x")
    scheduler.check()
    drain(scheduler, outcome)
    chat = [*PROMPT[:100], *outcome.tokens["x"], *PROMPT[100:110]]
    tokens, timings = answer(model, chat)
    assert timings.prompt_n == 11
    assert tokens == uncached(model, chat)


def test_a_preempted_sequence_continues_with_the_same_text(path: Path) -> None:
    params = InferenceParameters(temperature=0.0, max_tokens=120, ignore_eos=True)
    prompts = {f"{i}": PROMPT[20 * i : 20 * i + 60] for i in range(4)}
    with load(path, context_size=300, kv_cells=400, checkpoints=2) as model:
        scheduler = model.scheduler()
        for id, prompt in prompts.items():
            scheduler.submit(Request(id=id, prompt=prompt, params=params))
        outcome = drain(scheduler)
        assert scheduler.stats().preemptions > 0
    with load(path) as model:
        for id, prompt in prompts.items():
            scheduler = model.scheduler()
            scheduler.submit(Request(id=id, prompt=prompt, params=params, cache_prompt=False))
            assert outcome.tokens[id] == drain(scheduler).tokens[id]


def test_text_beside_other_requests_is_unchanged(path: Path) -> None:
    with load(path, max_batch_tokens=48) as model:
        scheduler = model.scheduler()
        prompts = {f"{i}": [*PROMPT[: 40 * i], *PROMPT[250 : 250 + 7 * i + 3]] for i in range(6)}
        for id, prompt in prompts.items():
            scheduler.submit(Request(id=id, prompt=prompt, params=GREEDY))
        outcome = drain(scheduler)
        for id, prompt in prompts.items():
            assert outcome.tokens[id] == uncached(model, prompt)


def test_a_paused_answer_holds_no_slot_and_continues_without_computing_again(model: engine.Model) -> None:
    assert model.pool.states is not None
    scheduler, outcome = model.scheduler(), Outcome()
    scheduler.submit(Request(id="x", prompt=PROMPT[:100], params=GREEDY))
    while len(outcome.tokens.get("x", ())) < 5:
        outcome.add(scheduler.step())
    assert scheduler.pause("x")
    scheduler.check()
    assert model.pool.states.n_available == model.pool.states.n_slots
    assert scheduler.resume("x")
    computed = scheduler.stats().prompt_tokens
    steps = scheduler.stats().steps
    drain(scheduler, outcome)
    assert scheduler.stats().prompt_tokens == computed
    assert scheduler.stats().steps - steps == 24 - 5
    assert outcome.tokens["x"] == uncached(model, PROMPT[:100])
