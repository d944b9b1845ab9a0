"""Perplexity: llama-perplexity's figures, the definition done step by step, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import engine
from engine import perplexity
from engine.perplexity import Estimate
from engine.sampling import log_softmax
from server.models.bundled import bundled_model
from support.builders.golden import TinyModel, golden, matrices
from support.builders.lora import random_parts, write_adapter

TEXT = (Path(__file__).parent / "perplexity_text.txt").read_text().removesuffix("\n")
# What llama-perplexity (the pinned llama.cpp, CPU) says of TEXT and the bundled model: estimates, error.
LLAMA_CPP = {
    32: ([2.8040, 4.8245, 5.5306, 5.0564, 5.2269, 6.2550, 6.4296], 1.27098),
    64: ([5.4695, 5.0824, 7.4298], 1.79490),
}


def load(path: Path | None = None, **params: object) -> engine.Model:
    options = {"use_gpu": False, "n_threads": 1, "context_size": 64, "kv_cells": 64, "parallel": 1, **params}
    return engine.load(path or bundled_model(), engine.ModelParameters(**options))  # type: ignore[arg-type]


def measure(model: engine.Model, tokens: list[int], size: int, **kwargs: int) -> list[Estimate]:
    return list(perplexity.estimates(model, tokens, context_size=size, **kwargs))


@pytest.mark.parametrize("size", LLAMA_CPP)
def test_the_figures_match_those_of_llama_perplexity(size: int) -> None:
    estimates, error = LLAMA_CPP[size]
    with load() as model:
        tokens = perplexity.tokenize(model, TEXT)
        measured = measure(model, tokens, size)
    assert [estimate.perplexity for estimate in measured] == pytest.approx(estimates, rel=5e-3)
    assert measured[-1].error == pytest.approx(error, rel=5e-3)
    assert [estimate.n_chunks for estimate in measured] == list(range(1, len(tokens) // size + 1))
    assert measured[-1].n_scored == len(measured) * (size - size // 2 - 1)
    assert measured[-1].perplexity == pytest.approx(math.exp(measured[-1].nll))


def step_by_step(model: engine.Model, tokens: list[int], size: int, bos: int | None) -> tuple[float, float]:
    """Perplexity and error by the definition, one token at a time."""
    surprises = []
    for start in range(0, len(tokens) // size * size, size):
        chunk = tokens[start : start + size]
        if bos is not None:
            chunk = [bos, *chunk[1:]]
        with model.start_session(engine.InferenceSessionConfig(cache_prompt=False)) as session:
            session.feed_prompt(chunk[: size // 2])
            for i in range(size // 2, size - 1):
                session.feed_prompt([chunk[i]])
                logits = session.last_logits.astype(np.float64)
                surprises.append(float(np.log(np.exp(logits).sum()) - logits[chunk[i + 1]]))
    mean = float(np.mean(surprises))
    spread = math.sqrt(float(np.var(surprises)) / (len(surprises) - 1))
    return math.exp(mean), math.exp(mean) * spread


@pytest.mark.parametrize("size", [17, 32])
@pytest.mark.parametrize("add_bos", [True, False])
@pytest.mark.parametrize("name", ["llama-gqa-tied", "llama-window"])
def test_perplexity_matches_its_definition(name: str, add_bos: bool, size: int, tmp_path: Path) -> None:
    ref, written = golden(name), TinyModel.read(golden(name).path)
    written.keys["tokenizer.ggml.add_bos_token"] = (add_bos, 7, None)
    with load(written.write(tmp_path / "model.gguf"), kv_type="f32") as model:
        assert (perplexity.tokenize(model, "a b")[0] == model.tokenizer.bos_id) == add_bos
        expected = step_by_step(model, ref.prompt, size, model.tokenizer.bos_id if add_bos else None)
        measured = measure(model, ref.prompt, size)[-1]
    assert (measured.perplexity, measured.error) == pytest.approx(expected, rel=1e-4)


def test_adapters_have_the_scales_that_they_were_loaded_with(tmp_path: Path) -> None:
    ref, tiny = golden("llama-gqa-tied"), TinyModel.read(golden("llama-gqa-tied").path)
    parts = random_parts(tiny, [name for name in matrices(tiny) if "ffn" in name], 4, 0)
    path = str(write_adapter(tmp_path / "lora.gguf", "llama", parts))
    results = []
    for scale in (0.0, 0.5):
        adapters = (engine.LoraAdapter(path, scale),)
        with load(ref.path, kv_type="f32", lora_adapters=adapters) as model:
            bos = model.tokenizer.bos_id if model.tokenizer.add_bos else None
            expected = step_by_step(model, ref.prompt, 17, bos)
            results.append(measure(model, ref.prompt, 17)[-1])
            assert (results[-1].perplexity, results[-1].error) == pytest.approx(expected, rel=1e-4)
    assert results[0].perplexity != pytest.approx(results[1].perplexity, rel=1e-2)


def test_perplexity_does_not_depend_on_the_batch_size(monkeypatch: pytest.MonkeyPatch) -> None:
    ref = golden("llama-gqa-tied")
    with load(ref.path, kv_type="f32", max_batch_tokens=48) as model:
        whole = measure(model, ref.prompt, 64)
        for n_batch in (1, 7, 31, 33, 512):
            assert measure(model, ref.prompt, 64, n_batch=n_batch)[-1] == pytest.approx(whole[-1], rel=1e-5)
        for rows in (1, 3):  # a large vocabulary: few rows of logits at a time
            monkeypatch.setattr(log_softmax, "LOGITS_BYTES", 4 * model.runner.n_vocab * rows)
            counts: list[int] = []
            forward = model.runner.forward
            monkeypatch.setattr(model, "runner", _Counting(model.runner, counts))
            assert measure(model, ref.prompt, 64)[-1] == pytest.approx(whole[-1], rel=1e-5)
            assert max(counts) == rows
            monkeypatch.setattr(model, "runner", forward.__self__)


class _Counting:
    def __init__(self, runner: object, counts: list[int]) -> None:
        self.runner, self.counts = runner, counts

    def __getattr__(self, name: str) -> object:
        return getattr(self.runner, name)

    def forward(self, rows: list[engine.session.BatchItem]) -> int:
        n: int = self.runner.forward(rows)  # type: ignore[attr-defined]
        self.counts.append(n)
        return n


def test_chunks_limits_the_estimate_to_the_first_chunks() -> None:
    ref = golden("llama-gqa-tied")
    with load(ref.path) as model:
        every = measure(model, ref.prompt, 32)
        assert measure(model, ref.prompt, 32, chunks=2) == every[:2]
        assert measure(model, ref.prompt, 32, chunks=100) == every


def test_perplexity_frees_its_cells() -> None:
    ref = golden("llama-gqa-tied")
    with load(ref.path) as model:
        with model.start_session() as session:  # leaves a prefix, which has to go
            session.feed_prompt(ref.prompt[:60])
        assert model.pool.n_free == 4
        measure(model, ref.prompt, 64)
        assert model.pool.n_free + model.prefix.n_cells == 64
        left = perplexity.estimates(model, ref.prompt, context_size=64)
        next(left)
        left.close()
        assert model.pool.n_free + model.prefix.n_cells == 64
        left = perplexity.estimates(model, ref.prompt, context_size=64)
        next(left)
    with pytest.raises(engine.EngineError, match="closed"):
        next(left)


@pytest.mark.parametrize(
    ("n_tokens", "kwargs", "text"),
    [
        (63, {"context_size": 32}, "the text has 63 tokens, but at least 64 are needed, two chunks of 32"),
        (0, {}, "the text has 0 tokens, but at least 1024 are needed"),
        (150, {"context_size": 7}, "the context size is 7; perplexity needs at least 8"),
        (150, {"context_size": 65}, "chunks of 65 tokens do not fit the context of 64"),
        (150, {"context_size": 32, "chunks": 0}, "chunks is 0"),
        (150, {"context_size": 32, "n_batch": 0}, "n_batch is 0"),
    ],
)
def test_perplexity_that_cannot_be_measured_is_refused(
    n_tokens: int, kwargs: dict[str, int], text: str
) -> None:
    with load(golden("llama-gqa-tied").path) as model, pytest.raises(engine.ConfigError, match=text):
        next(perplexity.estimates(model, [5] * n_tokens, **kwargs))


def test_perplexity_without_free_cells_is_refused() -> None:
    ref = golden("llama-gqa-tied")
    with load(ref.path) as model, model.start_session() as session:
        session.feed_prompt(ref.prompt[:10])
        with pytest.raises(engine.OutOfMemoryError, match="63 cells of the KV cache are needed and 54 of 64"):
            measure(model, ref.prompt, 64)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_an_error(value: float, tmp_path: Path) -> None:
    ref = golden("llama-gqa-tied")
    damaged = TinyModel.read(ref.path)
    damaged.tensors["output_norm.weight"][3] = value
    with (
        load(damaged.write(tmp_path / "damaged.gguf")) as model,
        pytest.raises(engine.EngineError, match="logits of chunk 1 are not finite"),
    ):
        measure(model, ref.prompt, 64)
