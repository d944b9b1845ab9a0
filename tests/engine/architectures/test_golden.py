"""The engine against transformers: tiny models of every kind, float32, logits and greedy tokens."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import engine
from engine.config import DRAFT_MODEL
from engine.graph.forward_context import ForwardContext
from engine.types import Timings
from support.builders.golden import (
    ENCODERS,
    FOLDER,
    NAMES,
    RANKERS,
    REPRESENTATIVES,
    Golden,
    TinyModel,
    error,
    golden,
    rms_error,
)
from support.fakes.drafts import draft_always, draft_at_random
from support.mistakes import MISTAKES
from support.quick import every, matrix
from support.references.greedy import Greedy, GreedyComparison, request, run

# Of `error`: the largest difference over the root mean square. Seen: up to 3e-5. Less than the other form of
# GELU costs (4e-4); the other mistakes below cost 0.1 and more.
TOLERANCE = 2e-4
ATTENTION = ("auto", "on", "off")
N_BATCH = (1, 8, 64, 512)
GREEDY = engine.InferenceParameters(temperature=0.0, max_tokens=24)


def load(path: Path, kv_type: str = "f32", flash_attn: str = "auto", kv_cells: int = 256) -> engine.Model:
    params = engine.ModelParameters(
        use_gpu=False,
        kv_type=kv_type,
        flash_attn=flash_attn,
        context_size=256,
        kv_cells=kv_cells,
        n_threads=1,
    )
    return engine.load(path, params)


def start(model: engine.Model, n_batch: int = 512) -> engine.InferenceSession:
    return model.start_session(engine.InferenceSessionConfig(n_batch=n_batch, cache_prompt=False))


def rows(session: engine.InferenceSession, ref: Golden) -> list[np.ndarray]:
    """The logits at the stored positions, the prompt fed piece by piece."""
    collected, begin = [], 0
    for position in ref.positions:
        session.feed_prompt(ref.prompt[begin : position + 1])
        collected.append(session.last_logits)
        begin = position + 1
    return collected


def generate(session: engine.InferenceSession, ref: Golden) -> Greedy:
    """24 greedy tokens; the margins are the reference's."""
    return Greedy([token.id for token in session.infer(GREEDY)], ref.greedy.margins, Timings())


def worst(path: Path, ref: Golden, measure: Callable[..., float] = error, **load_as: str) -> float:
    """The largest error at the stored positions."""
    with load(path, **load_as) as model, start(model) as session:
        return max(map(measure, rows(session, ref), ref.logits))


def test_references_exist_for_every_variant() -> None:
    assert len(NAMES) >= 50
    assert {path.stem for path in FOLDER.glob("*.gguf")} == {*NAMES, *ENCODERS, *RANKERS}


@pytest.mark.parametrize(
    ("name", "flash_attn"),
    matrix(
        [(name, flash_attn) for name in NAMES for flash_attn in ATTENTION],
        lambda case: case[1] == "auto" or case[0] in REPRESENTATIVES,
    ),
)
def test_logits_and_greedy_tokens_match_those_of_transformers(
    name: str, flash_attn: str, same_greedy: GreedyComparison
) -> None:
    ref = golden(name)
    with load(ref.path, flash_attn=flash_attn) as model, start(model) as session:
        for position, got, expected in zip(ref.positions, rows(session, ref), ref.logits, strict=True):
            assert error(got, expected) < TOLERANCE, f"after position {position}"
        same_greedy(generate(session, ref), ref.greedy)
        assert error(session.last_logits, ref.last) < TOLERANCE


@pytest.mark.parametrize("name", matrix(NAMES, REPRESENTATIVES.__contains__))
def test_logits_do_not_depend_on_the_batch_size(name: str, same_greedy: GreedyComparison) -> None:
    ref = golden(name)
    with load(ref.path) as model:
        for n_batch in N_BATCH:
            with start(model, n_batch) as session:
                session.feed_prompt(ref.prompt)
                assert error(session.last_logits, ref.logits[-1]) < TOLERANCE, f"n_batch {n_batch}"
                same_greedy(generate(session, ref), ref.greedy)
                assert error(session.last_logits, ref.last) < TOLERANCE, f"n_batch {n_batch}"


@pytest.mark.parametrize("flash_attn", every(3, ATTENTION))
@pytest.mark.parametrize("name", matrix(NAMES, REPRESENTATIVES.__contains__))
def test_other_requests_do_not_change_the_logits(
    name: str, flash_attn: str, same_greedy: GreedyComparison
) -> None:
    ref = golden(name)
    with load(ref.path, flash_attn=flash_attn, kv_cells=1024) as model:
        neighbours = [
            request(f"{i}", [1, *ref.prompt[i : i + length]], n=24, n_batch=n_batch, cache=False)
            for i, (length, n_batch) in enumerate([(20, 512), (70, 7), (110, 32)], start=1)
        ]
        alone = {r.id: run(model.scheduler(), [r])[r.id] for r in neighbours}
        requested = request("x", ref.prompt, n=24, n_batch=64, cache=False)
        together = run(model.scheduler(), [*neighbours[:2], requested, neighbours[2]])
        same_greedy(together["x"], ref.greedy)
        for r in neighbours:
            same_greedy(together[r.id], alone[r.id])


@pytest.mark.parametrize("flash_attn", every(3, ATTENTION))
@pytest.mark.parametrize("name", matrix(NAMES, REPRESENTATIVES.__contains__))
def test_drafts_do_not_change_the_text(name: str, flash_attn: str, same_greedy: GreedyComparison) -> None:
    ref = golden(name)
    with load(ref.path, flash_attn=flash_attn) as model:
        scheduler = model.scheduler()
        draft_at_random(scheduler, random.Random(2), lambda id: ref.greedy.tokens, model.hp.n_vocab)
        drafting = msgspec.structs.replace(request("x", ref.prompt, n=24, cache=False), draft_max=8)
        same_greedy(run(scheduler, [drafting])["x"], ref.greedy)
        stats = scheduler.stats()
        if model.hp.recurrence is None:
            assert 0 < stats.draft_accepted_tokens < stats.draft_tokens
        else:
            assert not stats.draft_tokens


@pytest.mark.parametrize("name", matrix(NAMES, REPRESENTATIVES.__contains__))
def test_model_as_its_own_draft_model_gives_the_same_text(name: str, same_greedy: GreedyComparison) -> None:
    """Its cells follow the text through windows, long factors and latents, so that its drafts are right."""
    ref = golden(name)
    params = engine.ModelParameters(
        use_gpu=False, kv_type="f32", context_size=256, kv_cells=256, n_threads=1, draft_model=str(ref.path)
    )
    with load(ref.path) as model:
        if model.hp.recurrence is not None:
            with pytest.raises(engine.ConfigError, match="cannot be rolled back after a rejected draft"):
                engine.load(ref.path, params)
            return
    with engine.load(ref.path, params) as model:
        scheduler = model.scheduler()
        draft_always(scheduler)
        drafting = msgspec.structs.replace(
            request("x", ref.prompt, n=24, cache=False), draft_max=5, spec_type=DRAFT_MODEL
        )
        same_greedy(run(scheduler, [drafting])["x"], ref.greedy)
        stats = scheduler.stats()
        assert stats.draft_accepted_tokens >= 0.7 * stats.draft_tokens > 8


# Largest `rms_error` of a cache type, and the margin under which its greedy path may part: several times
# what is seen. Sharp attention (the YaRN model) costs most.
CACHE_TYPES = {"f16": (0.02, 0.1), "bf16": (0.1, 0.3), "q8_0": (0.4, 1.0)}


@pytest.mark.parametrize("flash_attn", ATTENTION)
@pytest.mark.parametrize("kv_type", every(2, ["f16", "bf16"]))
@pytest.mark.parametrize("name", matrix(NAMES, REPRESENTATIVES.__contains__))
def test_logits_with_a_narrow_cache_stay_close(
    name: str, kv_type: str, flash_attn: str, same_greedy: GreedyComparison
) -> None:
    ref, (bound, tie) = golden(name), CACHE_TYPES[kv_type]
    if re.search("moe|mixtral|gpt-oss|deepseek|baichuan-alibi", name):
        bound, tie = 2 * bound, 2 * tie  # a router that chooses another expert; 40 layers
    with load(ref.path, kv_type, flash_attn) as model, start(model) as session:
        assert max(map(rms_error, rows(session, ref), ref.logits)) < bound
        same_greedy(generate(session, ref), ref.greedy, tie)


@pytest.mark.parametrize("flash_attn", ["auto", "on"])
@pytest.mark.parametrize("name", [name for name in NAMES if re.search("head-(?!80)|rope", name)])
def test_logits_with_an_8_bit_cache_stay_close(
    name: str, flash_attn: str, same_greedy: GreedyComparison
) -> None:
    ref, (bound, tie) = golden(name), CACHE_TYPES["q8_0"]
    with load(ref.path, "q8_0", flash_attn) as model, start(model) as session:
        assert max(map(rms_error, rows(session, ref), ref.logits)) < bound
        same_greedy(generate(session, ref), ref.greedy, tie)


@pytest.mark.parametrize("name", ["llama-gqa-tied", "llama-head-80"])
def test_a_quantized_cache_needs_heads_of_whole_blocks(name: str) -> None:
    with pytest.raises(engine.ConfigError, match="blocks of 32"):
        load(golden(name).path, "q8_0")


@pytest.mark.parametrize("kv_type", ["q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"])
def test_our_and_ggmls_attention_agree_on_a_quantized_cache(kv_type: str) -> None:
    ref = golden("llama-head-64")
    collected = []
    for flash_attn in ("auto", "on"):
        with load(ref.path, kv_type, flash_attn) as model, start(model) as session:
            collected.append(rows(session, ref))
    assert max(map(rms_error, *collected)) < 0.2


@pytest.mark.parametrize("kv_type", ["f32", "f16", "q8_0"])
@pytest.mark.parametrize("name", ["llama-head-32", "llama-window", "llama-rope-yarn", "deepseek2-lite"])
def test_a_prefix_from_the_cache_gives_the_same_logits(name: str, kv_type: str) -> None:
    ref = golden(name)
    if kv_type == "q8_0" and name == "llama-window":
        name, ref = "llama-head-64", golden("llama-head-64")  # heads of 16 cannot be quantized
    with load(ref.path, kv_type) as model:
        sessions = engine.InferenceSessionConfig(n_batch=32, cache_prompt=True)
        with model.start_session(sessions) as first:
            first.feed_prompt(ref.prompt)
            alone = first.last_logits
        with model.start_session(sessions) as second:
            second.feed_prompt(ref.prompt)
            assert error(second.last_logits, alone) < TOLERANCE
            with model.start_session(sessions) as third:  # beside it, from the middle on
                third.feed_prompt([*ref.prompt[:75], *ref.prompt[100:]])
                mixed = third.last_logits
        with start(model) as fresh:
            fresh.feed_prompt([*ref.prompt[:75], *ref.prompt[100:]])
            assert error(mixed, fresh.last_logits) < TOLERANCE


# --- the references can tell right from wrong


@pytest.mark.parametrize("mistake", every(9, MISTAKES))
def test_mistake_in_the_graph_is_detected(mistake: str, tmp_path: Path) -> None:
    name, change = MISTAKES[mistake]
    ref = golden(name)
    model = TinyModel.read(ref.path)
    assert worst(model.write(tmp_path / "same.gguf"), ref) < TOLERANCE
    change(model)
    least = 0.01 if "eps" in mistake else 0.1
    assert worst(model.write(tmp_path / "wrong.gguf"), ref) > least


# What would be the wrong form of GELU: the one by tanh, or the one by the error function.
TANH = ("bloom", "gemma", "gemma2-scale", "gemma3", "gpt2", "gptj", "phi2", "starcoder", "starcoder2")
ERF = ("falcon-7b", "gptneox", "gptneox-sequential", "mpt", "mpt-positions")
GELU = dict.fromkeys(TANH, "gelu_erf") | dict.fromkeys(ERF, "gelu")


@pytest.mark.parametrize("name", GELU)
def test_wrong_gelu_is_detected(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ref, activate = golden(name), ForwardContext.activate

    def other(step: ForwardContext, layer: int, activation: str, *parts: Any) -> Any:
        assert {activation, GELU[name]} == {"gelu", "gelu_erf"}
        return activate(step, layer, GELU[name], *parts)

    monkeypatch.setattr(ForwardContext, "activate", other)
    assert worst(ref.path, ref) > TOLERANCE
