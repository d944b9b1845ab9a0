"""Models whose layers keep only a window: chats several times as long, and that texts are those without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

import engine
from engine.cache.window_rows import WindowRows
from engine.types import Request
from support.builders.golden import FOLDER, TinyModel, error, golden
from support.fakes.runner import Outcome, drain
from support.quick import every, matrix
from support.references.answers import GREEDY, answer

# Their windows have 32 or 48 positions, their contexts 256.
NAMES = (
    *("cohere2", "exaone4-window", "gemma2", "gemma2-scale", "gemma3", "gemma3n", "gemma4", "gemma4-experts"),
    *("gemma4-shared", "gpt-oss", "llama-window", "llama4-chunks", "olmo3", "phi3", "starcoder2"),
)
QUICK = ("gemma3", "gemma4-shared", "gpt-oss", "llama-window", "llama4-chunks")


def load(name: str, folder: Path = FOLDER, **more: object) -> engine.Model:
    """With as few rows as may be, or with as many as cells (`checkpoints=40`)."""
    options = {
        "context_size": 256,
        "kv_cells": 1024,
        "parallel": 2,
        "max_batch_tokens": 32,
        "checkpoints": 1,
        "checkpoint_interval": 64,
        "kv_type": "f32",
    } | more
    params = engine.ModelParameters(use_gpu=False, n_threads=1, **options)  # type: ignore[arg-type]
    return engine.load(folder / f"{name}.gguf", params)


def windows_of(model: engine.Model) -> WindowRows:
    assert model.pool.windows is not None
    return model.pool.windows


def prompt_of(name: str, n: int) -> list[int]:
    """`n` tokens that do not repeat themselves."""
    prompt = golden(name).prompt
    return [*prompt, *prompt[::-1], *prompt[1::2]][:n]


@pytest.mark.parametrize("flash_attn", ["auto", "on", "off"])
@pytest.mark.parametrize("name", matrix(NAMES, QUICK.__contains__))
def test_logits_and_greedy_tokens_match_those_of_transformers(name: str, flash_attn: str) -> None:
    ref = golden(name)
    with load(name, flash_attn=flash_attn) as model, model.start_session() as session:
        assert windows_of(model).n_rows < model.n_cells
        begin = 0
        for position, expected in zip(ref.positions, ref.logits, strict=True):
            session.feed_prompt(ref.prompt[begin : position + 1])
            begin = position + 1
            assert error(session.last_logits, expected) < 2e-4
        for _ in session.infer(GREEDY):
            pass
        assert error(session.last_logits, ref.last) < 2e-4


@pytest.mark.parametrize("flash_attn", ["on", "off"])
def test_a_window_of_one_token_is_the_same_with_masks(flash_attn: str, tmp_path: Path) -> None:
    ref, created = golden("gemma3"), TinyModel.read(FOLDER / "gemma3.gguf")
    created.set("attention.sliding_window", 1)
    created.write(tmp_path / "one.gguf")
    logits = []
    for kind in ("auto", flash_attn):
        with load("one", tmp_path, flash_attn=kind) as model, model.start_session() as session:
            assert windows_of(model).reach == 0
            session.feed_prompt(ref.prompt)
            logits.append(np.array(session.last_logits))
    assert error(logits[1], logits[0]) < 2e-4


@pytest.mark.parametrize("flash_attn", every(3, ["auto", "on", "off"]))
@pytest.mark.parametrize("name", matrix(NAMES, QUICK.__contains__))
def test_a_long_chat_computes_its_new_tokens_and_matches_that_of_a_full_cache(
    name: str, flash_attn: str
) -> None:
    turns = prompt_of(name, 140)
    with (
        load(name, flash_attn=flash_attn) as model,
        load(name, flash_attn=flash_attn, checkpoints=40) as full,
    ):
        assert full.pool.windows is None
        assert model.cache.nbytes < full.cache.nbytes * model.n_cells / full.n_cells
        chat = turns[:60]
        for begin in (60, 80, 110, 130):
            text, timings = answer(model, chat)
            assert timings.prompt_n == 60 if begin == 60 else timings.prompt_n <= 31
            expected, _ = answer(full, chat, cache_prompt=False)
            assert text == expected
            chat = [*chat, *text[:8], *turns[begin : begin + 20]]


@pytest.mark.parametrize("name", matrix(NAMES, QUICK.__contains__))
def test_logits_under_load_eviction_and_preemption_are_bit_identical(name: str) -> None:
    prompts = {str(i): prompt_of(name, 200)[3 * i : 40 * i + 40] for i in range(4)}
    with load(name, kv_cells=300, context_size=256, max_batch_tokens=24) as model:
        scheduler = model.scheduler()
        for id, prompt in prompts.items():
            scheduler.submit(Request(id=id, prompt=prompt, params=GREEDY, n_batch=7 * int(id) + 5))
        outcome = drain(scheduler)
        for id, prompt in prompts.items():
            again, _ = answer(model, prompt)
            assert again == outcome.tokens[id]
    with load(name, checkpoints=40) as full:
        for id, prompt in prompts.items():
            assert answer(full, prompt, cache_prompt=False)[0] == outcome.tokens[id]


def test_logits_are_bit_identical_to_a_full_caches() -> None:
    prompt = prompt_of("gemma3", 200)
    with load("gemma3") as model, load("gemma3", checkpoints=40) as full:
        collected = []
        for each in (model, full):
            with each.start_session(engine.InferenceSessionConfig(n_batch=20)) as session:
                session.feed_prompt(prompt)
                collected.append(session.last_logits)
    assert np.array_equal(*collected)


def test_a_shared_prefix_within_a_window_is_reused_to_the_token() -> None:
    with load("gemma3") as model:
        prompt = prompt_of("gemma3", 60)
        answer(model, prompt[:30])
        _, timings = answer(model, [*prompt[:21], 9, *prompt[30:40]])
        assert timings.cached_n == 21


def test_a_prefix_longer_than_a_window_becomes_a_checkpoint_where_prompts_diverge() -> None:
    with load("gemma3", checkpoints=3, checkpoint_interval=512) as model:
        prompt = prompt_of("gemma3", 230)
        answer(model, prompt[:200])
        ends = ([9, *prompt[150:170]], [8, *prompt[160:180]], [7, *prompt[170:190]])
        cached = [answer(model, [*prompt[:100], *end])[1].cached_n for end in ends]
        assert cached == [0, 100, 100]


@pytest.mark.parametrize("boundaries", [[120], []])
@pytest.mark.parametrize("name", ["gemma2", "gemma3"])
def test_chats_with_one_system_prompt_compute_their_own_messages(name: str, boundaries: list[int]) -> None:
    """Also without boundaries if the messages are short, which is what a sequence's slack is for."""
    prompt = prompt_of(name, 230)
    n = 60 if boundaries else 20
    with load(name, checkpoints=3) as model, load(name, checkpoints=40) as full:
        for i in range(12):  # more than there is room for: the common part is used each time, and stays
            chat = [*prompt[:120], i, *prompt[150 + i : 149 + i + n]]
            text, timings = answer(model, chat, boundaries=boundaries)
            assert timings.prompt_n == (n if i else 120 + n)
            assert text == answer(full, chat, cache_prompt=False)[0]


def test_rows_of_a_boundary_are_of_one_batch_with_the_rest() -> None:
    prompt = prompt_of("gemma3", 200)
    with load("gemma3", max_batch_tokens=256) as model:
        scheduler = model.scheduler()
        params = replace(GREEDY, max_tokens=1)
        scheduler.submit(Request(id="x", prompt=prompt, params=params, boundaries=[60, 130]))
        drain(scheduler)
        assert scheduler.stats().steps == 1
        cached = [answer(model, [*prompt[:n], 9])[1].cached_n for n in (130, 60)]
        assert cached == [130, 60]


def test_a_rewound_session_continues_from_its_last_checkpoint() -> None:
    prompt = prompt_of("gemma3", 200)
    with load("gemma3") as model, model.start_session() as session:
        session.feed_prompt(prompt[:100])
        session.feed_prompt(prompt[100:180])
        session.rewind(70)
        expected_tokens = prompt[:110]
        assert session.tokens == expected_tokens
        logits = session.last_logits
        with model.start_session(engine.InferenceSessionConfig(cache_prompt=False)) as other:
            other.feed_prompt(expected_tokens)
            assert np.array_equal(logits, other.last_logits)


@pytest.mark.parametrize("n", [20, 200])
@pytest.mark.parametrize("kv_type", ["f16", "bf16"])
def test_a_restored_session_continues_without_computing_it_again(
    tmp_path: Path, kv_type: str, n: int
) -> None:
    prompt = prompt_of("gemma3", 230)
    with load("gemma3", kv_type=kv_type) as model, model.start_session() as session:
        session.feed_prompt(prompt[:n])
        size = session.save(tmp_path / "session")
        expected = [token.id for token in session.infer(GREEDY)]
    with load("gemma3", kv_type=kv_type) as model, model.restore_session(tmp_path / "session") as session:
        assert session.n_past == n
        assert [token.id for token in session.infer(GREEDY)] == expected
        session.close()
        _, timings = answer(model, [*prompt[:n], *prompt[210:230]])
        assert timings.cached_n == n
    with load("gemma3", kv_type=kv_type, checkpoints=40) as full, full.start_session() as session:
        session.feed_prompt(prompt[:n])
        assert (session.save(tmp_path / "full") > size) is (n > 32)
        if n > 32:
            with pytest.raises(engine.ConfigError, match="larger --context-size"):
                full.restore_session(tmp_path / "session")
    with load("gemma3", kv_type=kv_type) as model, model.restore_session(tmp_path / "full") as session:
        assert [token.id for token in session.infer(GREEDY)] == expected


def test_embeddings_and_perplexity_of_long_texts_match_those_of_a_full_cache() -> None:
    from engine import perplexity

    prompt = prompt_of("gemma3", 240)
    with load("gemma3") as model, load("gemma3", checkpoints=40) as full:
        for each in (model, full):
            assert np.isfinite(each.embed(prompt)).all()
        assert np.array_equal(model.embed(prompt), full.embed(prompt))
        estimates = [list(perplexity.estimates(m, prompt, context_size=100)) for m in (model, full)]
        assert estimates[0] == estimates[1]
        windows = windows_of(model)
        assert windows.n_held == 0


def test_sessions_that_hold_all_rows_leave_a_clear_error() -> None:
    prompt = prompt_of("gemma3", 100)
    with load("gemma3") as model:
        sessions = [model.start_session() for _ in range(9)]

        def feed_all() -> None:
            for i, session in enumerate(sessions):
                session.feed_prompt([i, *prompt])

        with pytest.raises(engine.OutOfMemoryError, match="rows free for layers with a window"):
            feed_all()
        scheduler = model.scheduler()
        scheduler.submit(Request(id="x", prompt=prompt, params=GREEDY))
        outcome = Outcome()
        while scheduler.has_work:
            outcome.add(scheduler.step())
        assert outcome.last["x"].error is not None
        assert "held by sessions outside" in outcome.last["x"].error
        for session in sessions:
            session.close()
        assert windows_of(model).n_held == 0
        answer(model, prompt)
