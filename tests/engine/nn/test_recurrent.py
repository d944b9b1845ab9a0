"""Models with recurrent layers: what is computed again, and what goes on from a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import engine
from engine.quantize.quantizer import quantize_file
from engine.tasks.prompt_logprobs import LogprobRows, PromptLogprobsRunner
from engine.types import Timings
from support.builders.golden import error, golden
from support.quick import every
from support.references.greedy import request, run

NAMES = (
    *("bamba", "falcon-h1", "granitehybrid", "jamba", "lfm2", "lfm2moe", "mamba", "mamba-falcon", "mamba2"),
    *("nemotron_h", "nemotron_h_moe", "nemotron_h_moe-latent", "qwen3next", "qwen35", "qwen35moe"),
)
TOLERANCE = 2e-4


def load(
    name: str, *, checkpoints: int | None = None, interval: int = 512, parallel: int = 4
) -> engine.Model:
    params = engine.ModelParameters(
        use_gpu=False,
        kv_type="f32",
        context_size=256,
        kv_cells=1024,
        n_threads=1,
        parallel=parallel,
        checkpoints=checkpoints,
        checkpoint_interval=interval,
    )
    return engine.load(golden(name).path, params)


def answer(model: engine.Model, id: str, prompt: Sequence[int], n: int = 12) -> tuple[list[int], Timings]:
    """The greedy tokens that follow a prompt, and what they cost."""
    done = run(model.scheduler(), [request(id, prompt, n=n)])[id]
    return list(done.tokens), done.timings


def alone(name: str, prompt: Sequence[int], n: int = 12) -> list[int]:
    with load(name) as model:
        return list(run(model.scheduler(), [request("x", prompt, n=n, cache=False)])["x"].tokens)


@pytest.mark.parametrize("name", every(4, NAMES))
def test_the_next_turn_computes_only_its_own_tokens(name: str) -> None:
    ref = golden(name)
    with load(name) as model:
        first, timings = answer(model, "1", ref.prompt[:60])
        assert timings.cached_n == 0
        turn = [*ref.prompt[:60], *first, *ref.prompt[60:70]]
        second, timings = answer(model, "2", turn)
        assert (timings.cached_n, timings.prompt_n) == (60 + len(first) - 1, 11)
        assert second == alone(name, turn)
        edited = [*ref.prompt[:60], *first, *ref.prompt[80:95]]
        third, timings = answer(model, "3", edited)
        assert timings.cached_n == 60 + len(first) - 1  # from the start of the turn
        assert third == alone(name, edited)
        model.scheduler().check()


@pytest.mark.parametrize("name", ["lfm2", "mamba2", "qwen35"])
def test_long_prompt_leaves_checkpoints_at_intervals(name: str) -> None:
    prompt = golden(name).prompt
    with load(name, interval=32) as model:
        answer(model, "1", prompt)
        other = [*prompt[:100], 7, 8, 9, *prompt[100:110]]
        tokens, timings = answer(model, "2", other)
        assert timings.cached_n == 96
        assert tokens == alone(name, other)
        again, timings = answer(model, "3", [*prompt[:100], 11, *prompt[100:110]])
        assert timings.cached_n == 100  # where the second parted from the first
        assert again == alone(name, [*prompt[:100], 11, *prompt[100:110]])


def test_prompts_with_a_common_prefix_at_the_same_time_compute_it_once() -> None:
    prompt = golden("qwen35").prompt
    with load("qwen35") as model:
        scheduler = model.scheduler()
        requests = [request(f"{i}", [*prompt[:80], 5 + i, *prompt[90:99]], n=6) for i in range(4)]
        done = run(scheduler, requests)
        assert [done[f"{i}"].timings.cached_n for i in range(4)] == [0, 80, 80, 80]
        for i, r in enumerate(requests):
            assert list(done[f"{i}"].tokens) == alone("qwen35", r.prompt, 6)


@pytest.mark.parametrize("name", NAMES)
def test_saved_session_continues_alike(name: str, tmp_path: Path) -> None:
    ref, path = golden(name), tmp_path / "session"
    with load(name) as model, model.start_session() as session:
        session.feed_prompt(ref.prompt[:100])
        session.save(path)
        session.feed_prompt(ref.prompt[100:])
        expected = session.last_logits
    with load(name) as model, model.restore_session(path) as session:
        assert session.n_past == 100
        session.feed_prompt(ref.prompt[100:])
        np.testing.assert_array_equal(session.last_logits, expected)
        with model.restore_session(path) as second:  # beside what is cached already
            second.feed_prompt(ref.prompt[100:])
            np.testing.assert_array_equal(second.last_logits, expected)


@pytest.mark.parametrize("name", NAMES)
def test_a_rewound_session_continues_from_the_last_checkpoint(name: str) -> None:
    ref = golden(name)
    with load(name) as model, model.start_session() as session:
        session.feed_prompt(ref.prompt[:50])
        session.feed_prompt(ref.prompt[50:120])
        session.rewind(40)  # into the second piece
        assert session.n_past == 50
        session.feed_prompt(ref.prompt[80:])
        assert error(session.last_logits, ref.logits[-1]) < TOLERANCE
        session.rewind(0)
        session.rewind(150)
        assert (session.tokens, session.n_past) == ([], 0)
        session.feed_prompt(ref.prompt)
        assert error(session.last_logits, ref.logits[-1]) < TOLERANCE


def test_finished_sequence_owns_no_slot(tmp_path: Path) -> None:
    ref = golden("mamba2")
    with load("mamba2", checkpoints=1, parallel=2) as model:
        states = model.pool.states
        assert states is not None
        assert states.n_slots == 3
        for i in range(3):
            with model.start_session() as session:
                session.feed_prompt(ref.prompt[i : 40 + i])
                assert states.n_available == 2
        model.embed(ref.prompt)
        answer(model, "1", ref.prompt)
        assert states.n_available == 3
        sessions = [model.start_session() for _ in range(4)]
        for session in sessions[:3]:
            session.feed_prompt(ref.prompt[:9])
        with pytest.raises(engine.OutOfMemoryError, match="all 3 slots"):
            sessions[3].feed_prompt(ref.prompt[:9])
        for session in sessions:
            session.close()
        assert states.n_available == 3


def test_more_requests_than_slots_take_turns() -> None:
    ref = golden("lfm2")
    with load("lfm2", checkpoints=1, parallel=3) as model, model.start_session() as session:
        session.feed_prompt(ref.prompt[:5])
        prompts = {f"{i}": ref.prompt[i : 30 + i] for i in range(8)}
        done = run(model.scheduler(), [request(id, prompt, n=6) for id, prompt in prompts.items()])
        for id, prompt in prompts.items():
            assert list(done[id].tokens) == alone("lfm2", prompt, 6)


@pytest.mark.parametrize("name", NAMES)
def test_log_probabilities_of_a_prompt_match_those_of_transformers(name: str) -> None:
    ref = golden(name)
    with load(name, interval=40) as model:
        for top in (0, 1):  # the second time it goes on from checkpoints
            runner = PromptLogprobsRunner(model)
            runner.submit("p", ref.prompt, top)
            rows = []
            while runner.has_work:
                _, result = runner.step() or ("", None)
                assert isinstance(result, LogprobRows)
                rows.extend(result.rows[:, 0])
            assert len(rows) == len(ref.prompt) - 1
            for position, logits in zip(ref.positions[:-1], ref.logits, strict=False):
                x = logits.astype(np.float64)
                expected = x[ref.prompt[position + 1]] - np.log(np.exp(x).sum())
                assert rows[position] == pytest.approx(expected, abs=1e-3)
        model.scheduler().check()


@pytest.mark.parametrize("name", ["lfm2", "mamba", "qwen3next"])
def test_embedding_does_not_depend_on_the_chunks(name: str) -> None:
    ref, vectors = golden(name), []
    for n in (512, 32):
        params = engine.ModelParameters(
            use_gpu=False, context_size=256, kv_cells=512, kv_type="f32", n_threads=1, max_batch_tokens=n
        )
        with engine.load(ref.path, params) as model:
            vectors.append(model.embed(ref.prompt, normalize=False))
    assert error(vectors[1], vectors[0]) < TOLERANCE


@pytest.mark.parametrize("name", every(5, NAMES))
def test_packed_weights_give_bit_identical_logits_for_any_chunks(name: str, tmp_path: Path) -> None:
    ref, path = golden(name), tmp_path / "model.gguf"
    quantize_file(ref.path, path, "Q8_0")
    collected = []
    with engine.load(path, engine.ModelParameters(use_gpu=False, n_threads=2, context_size=256)) as model:
        for n_batch in (512, 64, 7, 1):
            config = engine.InferenceSessionConfig(n_batch=n_batch, cache_prompt=False)
            with model.start_session(config) as session:
                session.feed_prompt(ref.prompt)
                collected.append(session.last_logits)
    for logits in collected[1:]:
        np.testing.assert_array_equal(logits, collected[0])


def test_model_without_attention_needs_no_cache_for_a_long_context() -> None:
    params = engine.ModelParameters(use_gpu=False, n_threads=1)
    with engine.load(golden("mamba2").path, params) as model:
        assert model.n_ctx == 1 << 20
        assert model.n_cells == params.parallel << 20
        assert model.cache.nbytes == 0
