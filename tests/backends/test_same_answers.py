"""Models on CLBlast and through RPC: the CPU's answers, however layers are split."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import engine
from engine.config import DRAFT_MODEL
from engine.model.preparation import preview
from engine.types import Timings
from support.builders.golden import (
    ENCODERS,
    FOLDER,
    NAMES,
    TinyModel,
    error,
    golden,
    rms_error,
    wide_model,
    widened,
)
from support.builders.quantized import FORMATS, quantize
from support.fakes.drafts import draft_always
from support.references.devices import params, rpc_device, run
from support.references.greedy import Greedy, GreedyComparison
from support.references.greedy import request as greedy_request
from support.references.greedy import run as generate

SEVEN = ["llama-gqa-tied", "mpt", "falcon-7b", "falcon-40b", "gptneox", "gptj", "gpt2", "bloom"]
LAYERS = [0, 1, 2, "all"]  # of two and the output
TYPES = ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("where", ["CLBlast", "RPC"])
@pytest.mark.parametrize("name", SEVEN)
def test_f32_weights_give_the_answers_of_the_cpu(
    name: str, where: str, layers: Any, request: pytest.FixtureRequest, same_greedy: GreedyComparison
) -> None:
    ref = golden(name)
    logits, tokens, placement = run(ref.path, ref, params(where, request, layers))
    on_device = sum(device != "CPU" for device in placement)
    assert on_device == (len(placement) if layers == "all" else layers)
    assert error(logits, ref.logits[-1]) < 1e-4
    same_greedy(Greedy(tokens, ref.greedy.margins, Timings()), ref.greedy)


@pytest.mark.parametrize("where", ["CLBlast", "RPC-CLBlast"])
@pytest.mark.parametrize("name", [name for name in NAMES if name not in SEVEN])
def test_other_models_give_the_answers_of_the_cpu(
    name: str, where: str, request: pytest.FixtureRequest, same_greedy: GreedyComparison
) -> None:
    ref = golden(name)
    logits, tokens, placement = run(ref.path, ref, params(where, request))
    assert "CPU" not in placement
    assert error(logits, ref.logits[-1]) < 1e-3
    same_greedy(Greedy(tokens, ref.greedy.margins, Timings()), ref.greedy)


@pytest.mark.parametrize("where", ["CLBlast", "RPC-CLBlast"])
@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_give_the_hidden_states_of_the_cpu(
    name: str, where: str, request: pytest.FixtureRequest
) -> None:
    with np.load(FOLDER / f"{name}.npz") as arrays:
        prompt, hidden = arrays["prompt"].tolist(), arrays["hidden"]
    with engine.load(FOLDER / f"{name}.gguf", params(where, request, context_size=None)) as model:
        assert "CPU" not in model.describe()["placement"]
        got = model.embed(prompt, pooling="none", normalize=False)
    assert error(got, hidden) < 1e-3


@pytest.mark.parametrize("flash_attn", ["on", "off"])
@pytest.mark.parametrize("where", ["CLBlast", "RPC"])
@pytest.mark.parametrize(
    "name", ["llama-head-32", "llama-window", "gptneox", "gemma2", "gemma3", "gpt-oss", "qwen2moe"]
)
def test_both_kinds_of_attention_give_the_answers_of_the_cpu(
    name: str, where: str, flash_attn: str, request: pytest.FixtureRequest
) -> None:
    ref = golden(name)
    logits, _, placement = run(ref.path, ref, params(where, request, flash_attn=flash_attn))
    assert "CPU" not in placement
    assert error(logits, ref.logits[-1]) < 1e-3


@pytest.mark.parametrize("flash_attn", ["auto", "off"])
@pytest.mark.parametrize("where", ["CLBlast", "RPC"])
@pytest.mark.parametrize("name", ["gemma3", "gemma4-shared", "gpt-oss", "llama4-chunks"])
def test_layers_with_a_window_give_the_answers_of_the_cpu(
    name: str, where: str, flash_attn: str, request: pytest.FixtureRequest, same_greedy: GreedyComparison
) -> None:
    ref = golden(name)
    few_rows = {"kv_cells": 1024, "max_batch_tokens": 32, "checkpoints": 1}
    parameters = params(where, request, flash_attn=flash_attn, **few_rows)
    assert preview(ref.path, parameters).has_windows
    logits, tokens, placement = run(ref.path, ref, parameters)
    assert "CPU" not in placement
    assert error(logits, ref.logits[-1]) < 1e-3
    same_greedy(Greedy(tokens, ref.greedy.margins, Timings()), ref.greedy)


@pytest.mark.parametrize("where", ["CLBlast", "RPC"])
@pytest.mark.parametrize("name", SEVEN)
def test_f16_weights_give_the_answers_of_the_cpu(
    name: str, where: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    ref, model = golden(name), TinyModel.read(golden(name).path)
    halves = {
        tensor: (1, x.astype(np.float16).tobytes())
        for tensor, x in model.tensors.items()
        if x.ndim == 2 and "position" not in tensor
    }
    for tensor in halves:
        model.tensors[tensor] = model.tensors[tensor].astype(np.float16).astype(np.float32)
    path = model.write(tmp_path / "f16.gguf", halves)
    exact, _, _ = run(model.write(tmp_path / "f32.gguf"), ref, params("cpu", request))
    # A CPU rounds what it multiplies halves with to halves: the same numbers as float32 are the reference.
    cpu, _, _ = run(path, ref, params("cpu", request))
    bound = max(1e-3, 1.1 * rms_error(cpu, exact))
    for layers in LAYERS:
        logits, _, placement = run(path, ref, params(where, request, layers))
        on_device = sum(device != "CPU" for device in placement)
        assert on_device == (len(placement) if layers == "all" else layers)
        assert rms_error(logits, exact) < bound, layers


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("where", ["CLBlast", "RPC-CLBlast"])
@pytest.mark.parametrize("name", SEVEN)
def test_quantized_weights_give_the_answers_of_the_same_weights_in_f32(
    name: str, where: str, kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Against the same weights as float32: the CPU rounds activations to 8 bits and is no reference."""
    ref = golden(name)
    # Falcon 7B's three heads do not divide rows of whole blocks, and its weights are those of 40B otherwise.
    model = wide_model(3) if name == "llama-gqa-tied" else widened(name.replace("7b", "40b"), 3)
    blocks = {}
    for i, (tensor, x) in enumerate(model.tensors.items()):
        if x.ndim == 2 and "position" not in tensor:
            data, model.tensors[tensor] = quantize(kind, x, np.random.default_rng(i))
            blocks[tensor] = (FORMATS[kind].number, data)
    path = model.write(tmp_path / "q.gguf", blocks)
    exact, _, _ = run(model.write(tmp_path / "f32.gguf"), ref, params("cpu", request))
    logits, _, placement = run(path, ref, params(where, request))
    assert "CPU" not in placement
    assert rms_error(logits, exact) < 1e-3


@pytest.mark.parametrize("where", ["CLBlast", "RPC-CLBlast"])
@pytest.mark.parametrize("kv_type", ["f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"])
def test_every_cache_type_gives_the_answers_of_the_cpu(
    kv_type: str, where: str, request: pytest.FixtureRequest
) -> None:
    ref = golden("llama-head-64")
    result = run(ref.path, ref, params(where, request, kv_type=kv_type))[0]
    there = run(ref.path, ref, params("cpu", request, kv_type=kv_type))[0]
    assert rms_error(result, there) < (0.02 if kv_type in ("f16", "bf16", "q8_0") else 0.2)


def test_cache_type_that_the_device_cannot_store_is_refused(request: pytest.FixtureRequest) -> None:
    with pytest.raises(engine.ConfigError, match=r"CLBlast0 cannot store a cache of --kv-type iq4_nl"):
        run(
            golden("llama-head-64").path,
            golden("llama-head-64"),
            params("CLBlast", request, kv_type="iq4_nl"),
        )


def test_several_devices_of_several_backends_share_a_model(request: pytest.FixtureRequest) -> None:
    ref = golden("gemma3")  # six layers
    addresses = [request.getfixturevalue(name) for name in ("rpc_cpu", "rpc_clblast")]
    names = [rpc_device(address) for address in addresses]
    parameters = engine.ModelParameters(
        use_gpu=True,
        devices=("CLBlast0", *names),
        rpc=tuple(addresses),
        tensor_split=(1, 1, 1),
        gpu_layers=6,
        kv_type="f32",
        context_size=256,
        n_threads=1,
        parallel=1,
    )
    logits, tokens, placement = run(ref.path, ref, parameters)
    assert len(set(placement)) == 4
    assert error(logits, ref.logits[-1]) < 1e-4
    assert tokens == ref.greedy.tokens


@pytest.mark.parametrize("where", ["CLBlast", "RPC"])
@pytest.mark.parametrize(("layers", "draft_layers"), [("all", 0), ("all", "all"), (0, "all"), (1, 2)])
def test_draft_model_is_placed_by_its_own_layers(
    where: str, layers: Any, draft_layers: Any, request: pytest.FixtureRequest
) -> None:
    ref = golden("llama-head-64")
    base = params(where, request)
    both = replace(
        base, use_gpu="auto", gpu_layers=layers, draft_model=str(ref.path), draft_gpu_layers=draft_layers
    )
    with engine.load(ref.path, both) as model:
        draft = model.draft
        assert draft is not None
        n_layers = len(model.layer_devices)
        for loaded, n in ((model, layers), (draft, draft_layers)):
            on_cpu = [device.type == "cpu" for device in loaded.layer_devices]
            assert on_cpu.count(False) == (n_layers if n == "all" else n)
        scheduler = model.scheduler()
        draft_always(scheduler)
        drafting = msgspec.structs.replace(
            greedy_request("x", ref.prompt, n=24, cache=False), draft_max=5, spec_type=DRAFT_MODEL
        )
        assert generate(scheduler, [drafting])["x"].tokens == ref.greedy.tokens
        stats = scheduler.stats()
        assert stats.draft_accepted_tokens >= 0.7 * stats.draft_tokens > 8
