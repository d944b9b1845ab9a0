"""Hidden states of encoders are those of transformers; embeddings are what they are pooled to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engine
from engine.errors import ConfigError, ContextOverflowError, ModelError, UnsupportedModelError
from engine.scheduler.batch import BatchItem
from engine.tasks.embedding import embed
from engine.types import Request
from support.builders.golden import ENCODERS, FOLDER, TinyModel, golden
from support.mistakes.changes import Change, exchanged, key, without

TOLERANCE = 1e-3
DECODER = golden("llama-gqa-tied").path


def load(path: Path, **more: Any) -> engine.Model:
    return engine.load(path, engine.ModelParameters(use_gpu=False, n_threads=1, **more))


def reference(name: str) -> tuple[list[int], np.ndarray]:
    with np.load(FOLDER / f"{name}.npz") as arrays:
        return arrays["prompt"].tolist(), arrays["hidden"]


def error(got: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, relative to the root mean square."""
    assert got.shape == expected.shape
    assert got.dtype == np.float32
    return float(np.abs(got - expected).max() / np.sqrt(np.square(expected).mean()))


@pytest.mark.parametrize("flash_attn", ["auto", "on", "off"])
@pytest.mark.parametrize("name", ENCODERS)
def test_hidden_states_match_those_of_transformers(name: str, flash_attn: str) -> None:
    prompt, hidden = reference(name)
    with load(FOLDER / f"{name}.gguf", flash_attn=flash_attn) as model:
        assert error(model.embed(prompt, pooling="none", normalize=False), hidden) < TOLERANCE


@pytest.mark.parametrize("name", ENCODERS)
def test_embedding_beside_other_requests_is_unchanged(name: str) -> None:
    prompt, hidden = reference(name)
    inputs = [prompt[:40], prompt, prompt[60:61], prompt[3:99], prompt, prompt[:7]]
    with load(FOLDER / f"{name}.gguf", max_batch_tokens=256, context_size=200) as model:
        actual = [e for e in embed(model, inputs, pooling="none", normalize=False) if e is not None]
        assert sorted(e.input for e in actual) == list(range(len(inputs)))
        for e in actual:
            expected = hidden if inputs[e.input] == prompt else None
            if expected is None:
                expected = model.embed(inputs[e.input], pooling="none", normalize=False)
            assert error(e.vector, expected) < TOLERANCE
        assert model.pool.n_free == model.pool.n_cells


def test_embed_pools_as_requested() -> None:
    prompt, hidden = reference("bert")
    with load(FOLDER / "bert.gguf") as model:
        for pooling, expected in {"mean": hidden.mean(0), "cls": hidden[0], "last": hidden[-1]}.items():
            got = model.embed(prompt, pooling=pooling, normalize=False)
            assert error(got, expected) < TOLERANCE
            unit = model.embed(prompt, pooling=pooling)
            assert np.linalg.norm(unit) == pytest.approx(1)
            np.testing.assert_allclose(unit, got / np.linalg.norm(got), atol=1e-5)
        np.testing.assert_array_equal(model.embed(prompt), model.embed(prompt, pooling="mean"))


@pytest.mark.parametrize("number", range(1, 4))
def test_default_pooling_is_the_files(number: int, tmp_path: Path) -> None:
    model = TinyModel.read(FOLDER / "bert.gguf")
    model.set("pooling_type", number)
    with load(model.write(tmp_path / "model.gguf")) as loaded:
        ids = [2, 9, 8, 7, 3]
        named = loaded.embed(ids, pooling=("none", "mean", "cls", "last")[number])
        np.testing.assert_array_equal(loaded.embed(ids), named)


def test_a_pooling_that_is_unknown_is_refused(tmp_path: Path) -> None:
    model = TinyModel.read(FOLDER / "bert.gguf")
    model.set("pooling_type", 5)
    with pytest.raises(UnsupportedModelError, match=r"bert\.pooling_type is 5.*mean"):
        load(model.write(tmp_path / "model.gguf"))


@pytest.mark.parametrize("pooling", ["mean", "cls", "last", "none"])
def test_decoders_embed_too_in_chunks_and_in_batches(pooling: str) -> None:
    """With a head that copies, logits are the hidden states: the tied embedding maps them to logits."""
    prompt = golden("llama-gqa-tied").prompt
    table = TinyModel.read(DECODER).tensors["token_embd.weight"]
    with load(DECODER, kv_type="f32", kv_cells=512, context_size=200) as model:
        whole = model.embed(prompt, pooling=pooling, normalize=False)
        if pooling == "none":
            with model.start_session() as session:
                session.feed_prompt(prompt)
                assert error((whole @ table.T)[-1], session.last_logits) < TOLERANCE
    with load(DECODER, kv_type="f32", kv_cells=512, context_size=200, max_batch_tokens=64) as model:
        inputs = [prompt[:10], prompt, prompt[:70]]
        actual = {
            e.input: e.vector for e in embed(model, inputs, pooling=pooling, normalize=False) if e is not None
        }
        assert error(actual[1], whole) < TOLERANCE
        assert error(actual[0], model.embed(prompt[:10], pooling=pooling, normalize=False)) < TOLERANCE


def test_sessions_continue_alongside_embeddings() -> None:
    ref = golden("llama-gqa-tied")
    with load(DECODER, kv_type="f32", kv_cells=512, context_size=256) as model:
        scheduler = model.scheduler()
        params = engine.InferenceParameters(temperature=0.0, max_tokens=24, ignore_eos=True)
        scheduler.submit(Request(id="x", prompt=ref.prompt, params=params, n_batch=64))
        job = embed(model, [ref.prompt[:50]] * 4)
        collected = []
        while scheduler.has_work:
            for emission in scheduler.step():
                collected += [token.id for token in emission.tokens]
            next(job, None)
            scheduler.check()
        assert collected == ref.greedy.tokens


def test_a_job_that_is_dropped_gives_its_cells_back() -> None:
    with load(DECODER, kv_cells=256, context_size=200, max_batch_tokens=32) as model:
        job = embed(model, [[5] * 150])
        assert next(job) is None
        assert model.pool.n_free == 106
        job.close()
        assert model.pool.n_free == 256


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_does_not_generate(name: str) -> None:
    with load(FOLDER / f"{name}.gguf", context_size=64) as model:
        for use in (model.start_session, model.scheduler):
            with pytest.raises(ModelError, match="makes embeddings"):
                use()
        cells = model.pool.alloc(3)
        with pytest.raises(ModelError, match="makes embeddings"):
            model.runner.forward([BatchItem([5, 6, 7], cells, 0, 1)])


def test_embed_of_invalid_inputs_is_refused() -> None:
    with load(FOLDER / "bert.gguf", context_size=64) as model:
        with pytest.raises(ContextOverflowError, match=r"65.*64"):
            model.embed([5] * 65)
        with pytest.raises(ConfigError, match="empty"):
            model.embed([])
        for bad in (-1, model.hp.n_vocab):
            with pytest.raises(ConfigError, match="vocabulary"):
                model.embed([5, bad])
        with pytest.raises(ConfigError, match="pooling is 'max'"):
            model.embed([5], pooling="max")
        assert model.embed([5] * 64).shape == (model.hp.n_embd,)


def test_learned_positions_bound_the_context() -> None:
    with load(FOLDER / "bert.gguf", context_size=512) as model:
        assert model.n_ctx == 256


def second_type(model: TinyModel) -> None:
    model.tensors["token_types.weight"] = model.tensors["token_types.weight"][::-1]


def gate_first(model: TinyModel) -> None:
    for name in [name for name in model.tensors if "ffn_up" in name]:
        model.tensors[name] = np.concatenate(np.split(model.tensors[name], 2)[::-1])


MISTAKES: dict[str, tuple[str, Change]] = {
    "types left out": ("bert", without("token_types")),
    "the other type": ("bert", second_type),
    "norms exchanged": ("bert", exchanged("attn_output_norm", "layer_output_norm")),
    "no bias of Q": ("bert", without("attn_q.bias")),
    "eps": ("bert", key("attention.layer_norm_epsilon", 1e-5)),
    "gate and up exchanged": ("nomic-bert", exchanged("ffn_gate", "ffn_up")),
    "another base": ("nomic-bert", key("rope.freq_base", 10000.0)),
    "window too large": ("gemma-embedding", key("attention.sliding_window", 34)),
    "window too small": ("gemma-embedding", key("attention.sliding_window", 30)),
    "one rotation for both": ("modern-bert", key("rope.freq_base_swa", 160000.0)),
    "other layers with windows": ("modern-bert", key("attention.sliding_window_pattern", 4)),
    "no window": ("modern-bert", key("attention.sliding_window", 0)),
    "Jina: norms exchanged": ("jina-bert-v2", exchanged("attn_output_norm", "layer_output_norm")),
    "Jina: no bias of V": ("jina-bert-v2", without("attn_v.bias")),
    "Jina: norms of Q and K exchanged": ("jina-bert-v2-code", exchanged("attn_q_norm", "attn_k_norm")),
    "Jina: gate first": ("jina-bert-v2-code", gate_first),
    "half a head rotated": ("nomic-bert", key("rope.dimension_count", 8)),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_in_the_graph_is_detected(mistake: str, tmp_path: Path) -> None:
    name, change = MISTAKES[mistake]
    prompt, hidden = reference(name)
    model = TinyModel.read(FOLDER / f"{name}.gguf")
    change(model)
    with load(model.write(tmp_path / "changed.gguf")) as loaded:
        got = loaded.embed(prompt, pooling="none", normalize=False)
    assert error(got, hidden) > (10 if mistake == "eps" else 100) * TOLERANCE


def test_causal_attention_in_an_encoder_would_be_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    prompt, hidden = reference("bert")
    with load(FOLDER / "bert.gguf") as model:
        alone = [model.embed(prompt[: n + 1], pooling="last", normalize=False) for n in range(3)]
        for i, vector in enumerate(alone):
            assert error(vector, hidden[i]) > 100 * TOLERANCE


def test_the_matrices_behind_embeddinggemma_are_applied(tmp_path: Path) -> None:
    prompt, hidden = reference("gemma-embedding")
    model, rng = TinyModel.read(FOLDER / "gemma-embedding.gguf"), np.random.default_rng(0)
    first, second = rng.normal(size=(24, 16)), rng.normal(size=(16, 24))
    for name, matrix in (("dense_2", first), ("dense_3", second)):
        model.tensors[f"{name}.weight"] = matrix.astype(np.float32)
    with load(model.write(tmp_path / "model.gguf")) as loaded:
        got = loaded.embed(prompt, normalize=False)
    assert error(got, (second @ first @ hidden.mean(0)).astype(np.float32)) < TOLERANCE
