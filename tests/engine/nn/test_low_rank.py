"""Adapters in the graph: the same as merged weights, as PEFT computes, and without effect on other rows."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import engine
from engine.convert import peft
from engine.convert.converter import convert
from engine.quantize.quantizer import quantize_file
from engine.scheduler.batch import BatchItem
from support.builders.golden import FOLDER, REPRESENTATIVES, TinyModel, error, golden, matrices
from support.builders.lora import merged, random_parts, write_adapter
from support.fakes.engine import STORIES
from support.quick import every

TOLERANCE = 2e-4  # as of the golden references
SETS = {
    "none": (),
    "attention": ((0, 1.0),),
    "everywhere": ((1, 1.0),),
    "both": ((0, 1.0), (1, 1.0)),
    "scaled": ((0, 0.5), (1, -1.5)),
}


def parameters(*adapters: Path, **more: object) -> engine.ModelParameters:
    values = {"use_gpu": False, "kv_type": "f32", "context_size": 256, "kv_cells": 2048, "n_threads": 1}
    lora = tuple(engine.LoraAdapter(str(path)) for path in adapters)
    return engine.ModelParameters(**(values | more), lora_adapters=lora)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """The base model of the PEFT references and both adapters, converted."""
    folder = tmp_path_factory.mktemp("lora")
    base = FOLDER / "hf" / "llama"
    convert(base, folder / "base.gguf", "f32")
    for name in ("attention", "everywhere"):
        peft.convert(FOLDER / "lora" / name, folder / f"{name}.gguf", base=base)
    return folder / "base.gguf", folder / "attention.gguf", folder / "everywhere.gguf"


@pytest.mark.parametrize("flash_attn", ["auto", "on", "off"])
def test_logits_match_those_of_peft(files: tuple[Path, Path, Path], flash_attn: str) -> None:
    base, *adapters = files
    with (
        np.load(FOLDER / "lora" / "logits.npz") as reference,
        engine.load(base, parameters(*adapters, flash_attn=flash_attn)) as model,
    ):
        prompt = reference["prompt"].tolist()
        for name, lora in SETS.items():
            config = engine.InferenceSessionConfig(lora=lora)  # all sessions share the prefix cache
            with model.start_session(config) as session:
                begin = 0
                for position, logits in zip(reference["positions"], reference[name], strict=True):
                    session.feed_prompt(prompt[begin : position + 1])
                    begin = position + 1
                    assert error(session.last_logits, logits) < TOLERANCE, (name, position)


@pytest.mark.parametrize("name", [*REPRESENTATIVES, "qwen2moe", "phi3"])
def test_adapter_of_every_matrix_equals_merged_weights(name: str, tmp_path: Path) -> None:
    ref, tiny = golden(name), TinyModel.read(FOLDER / f"{name}.gguf")
    tied = "output.weight" not in tiny.tensors
    names = [
        each
        for each in matrices(tiny)
        if each.endswith(".weight")
        and each != "position_embd.weight"
        and "attn_k_b" not in each  # of heads: refused
        and "attn_v_b" not in each
        and not (tied and each == "token_embd.weight")  # merging would change the head, too
    ]
    names += [each for each in tiny.tensors if "ffn_gate_inp.weight" in each]  # routers
    arch = tiny.keys["general.architecture"][0]
    parts = random_parts(tiny, names, 5, seed=1)
    adapter = write_adapter(tmp_path / "lora.gguf", arch, parts, alpha=2.0)
    path = merged(tiny, parts, 0.3 * 2.0 / 5).write(tmp_path / "merged.gguf")
    config = engine.InferenceSessionConfig(lora=((0, 0.3),))
    with engine.load(ref.path, parameters(adapter)) as model, model.start_session(config) as session:
        session.feed_prompt(ref.prompt[:40])
        logits = session.last_logits
    with engine.load(path, parameters()) as model, model.start_session() as session:
        session.feed_prompt(ref.prompt[:40])
        assert error(logits, session.last_logits) < TOLERANCE
    with engine.load(ref.path, parameters()) as model, model.start_session() as session:
        session.feed_prompt(ref.prompt[:40])
        assert error(logits, session.last_logits) > 100 * TOLERANCE  # it matters


@pytest.fixture(scope="module", params=every(2, ["Q8_0", "Q4_K_M"]))
def packed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[engine.Model]:
    """The bundled model, whose packed products are batch-invariant, with two adapters."""
    folder = tmp_path_factory.mktemp("packed")
    quantize_file(STORIES, folder / "model.gguf", request.param, requantize=True)
    quantize_file(STORIES, folder / "f32.gguf", "F32", requantize=True)
    tiny = TinyModel.read(folder / "f32.gguf")
    adapters = []
    for seed, kinds in enumerate((("attn_",), ("ffn_", "attn_q", "token_embd"))):
        names = [name for name in matrices(tiny) if any(kind in name for kind in kinds)]
        parts = random_parts(tiny, names, 3 + 20 * seed, seed)
        adapters.append(write_adapter(folder / f"{seed}.gguf", "llama", parts, alpha=1.0))
    with engine.load(folder / "model.gguf", parameters(*adapters, n_threads=2)) as model:
        yield model


def test_row_is_bit_identical_whatever_adapters_others_use(packed: engine.Model) -> None:
    rng = np.random.default_rng(2)
    sets = [(), ((0, 1.0),), ((1, 0.7),), ((0, -0.4), (1, 1.3)), ((0, 0.25),)]
    sizes = [7, 1, 12, 3, 1]
    prompts = [rng.integers(3, packed.hp.n_vocab, 5 + n).tolist() for n in sizes]
    items, cells = [], iter(range(2048))
    for prompt, n, lora in zip(prompts, sizes, sets, strict=True):
        table = array("i", [next(cells) for _ in prompt])
        packed.runner.forward([BatchItem(prompt[:5], table[:5], 0, 0, adapters=lora)])
        items.append(BatchItem(prompt[5:], table, 5, n, adapters=lora))

    def run(batch: list[BatchItem]) -> list[np.ndarray]:
        return [np.array(packed.runner.logits(i)) for i in range(packed.runner.forward(batch))]

    alone = [row for item in items for row in run([item])]
    np.testing.assert_array_equal(run(items), alone)
    np.testing.assert_array_equal(run(items[::-1]), [r for item in items[::-1] for r in run([item])])
    one_by_one = [
        run([item._replace(tokens=[token], cells=item.cells[: 6 + i], n_past=5 + i, logits=1)])[0]
        for item in items
        for i, token in enumerate(item.tokens)
    ]
    np.testing.assert_array_equal(one_by_one, alone)


def test_batch_without_adapters_equals_that_of_the_plain_model(packed: engine.Model) -> None:
    item = BatchItem([5, 6, 7], array("i", [0, 1, 2]), 0, 1)
    with engine.load(packed.gguf.path, parameters(n_threads=2)) as plain:
        for model in (packed, plain):
            model.runner.forward([item])
        np.testing.assert_array_equal(np.array(packed.runner.logits(0)), np.array(plain.runner.logits(0)))


def test_a_graph_depends_on_the_adapters_in_use_and_not_on_their_scales(packed: engine.Model) -> None:
    item = BatchItem([5, 6, 7], array("i", [0, 1, 2]), 0, 1)
    packed.runner.forward([item])
    built = packed.runner.graphs_built
    packed.runner.forward([item])
    assert packed.runner.graphs_built == built
    rows = []
    for scale in (1.0, 0.5):
        packed.runner.forward([item._replace(adapters=((0, scale),))])
        rows.append(np.array(packed.runner.logits(0)))
    assert packed.runner.graphs_built == built + 1
    assert (rows[0] != rows[1]).any()
