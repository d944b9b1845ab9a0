"""Experts and single tensors on the CPU while their layers are on a device: the same answers."""

from __future__ import annotations

from typing import Any

import pytest

import engine
from support.builders.golden import error, golden
from support.references.devices import params, run

MODELS = ("mixtral", "gpt-oss", "glm4moe", "deepseek2-v3")


def placed(model: engine.Model) -> dict[str, str]:
    """The layout of each matrix of experts by its name; on the CPU it begins with CPU."""
    return {
        name.partition(":")[0]: layout
        for name, layout in model.weights.placement.items()
        if "_exps.weight" in name
    }


@pytest.mark.parametrize("n", [1, "all"])
@pytest.mark.parametrize("where", ["CLBlast", "RPC"])
@pytest.mark.parametrize("name", MODELS)
def test_answers_match_those_of_the_cpu(
    name: str, where: str, n: Any, request: pytest.FixtureRequest
) -> None:
    ref = golden(name)
    parameters = params(where, request, cpu_experts=n)
    logits, tokens, placement = run(ref.path, ref, parameters, n_splits=None)
    assert "CPU" not in placement
    assert error(logits, ref.logits[-1]) < 1e-4
    assert tokens == ref.greedy.tokens
    with engine.load(ref.path, parameters) as model:
        for tensor, layout in placed(model).items():
            assert layout.startswith("CPU") is (n == "all" or tensor.startswith("blk.0.")), tensor


@pytest.mark.parametrize("where", ["CLBlast", "RPC"])
def test_tensors_selected_by_name_give_the_answers_of_the_cpu(
    where: str, request: pytest.FixtureRequest
) -> None:
    ref = golden("mixtral")
    parameters = params(where, request, tensor_overrides=((r"blk\.1\.(ffn_down_exps|attn_q)", "cpu"),))
    logits, tokens, _ = run(ref.path, ref, parameters, n_splits=None)
    assert error(logits, ref.logits[-1]) < 1e-4
    assert tokens == ref.greedy.tokens
    with engine.load(ref.path, parameters) as model:
        there = {name for name, layout in model.weights.placement.items() if layout.startswith("CPU")}
        assert there == {"blk.1.ffn_down_exps.weight:mul_mat_id", "blk.1.attn_q.weight:mul_mat"}


def test_a_tensor_of_a_layer_on_the_cpu_may_be_on_a_device(request: pytest.FixtureRequest) -> None:
    ref = golden("mixtral")
    parameters = params("CLBlast", request, layers=1, tensor_overrides=(("exps", "CLBlast0"),))
    logits, tokens, placement = run(ref.path, ref, parameters, n_splits=None)
    assert placement[:2] == ["CPU", "CPU"]
    assert error(logits, ref.logits[-1]) < 1e-4
    assert tokens == ref.greedy.tokens


@pytest.mark.parametrize("where", ["CLBlast", "RPC"])
def test_plan_matches_the_allocated_memory(where: str, request: pytest.FixtureRequest) -> None:
    parameters = params(where, request, cpu_experts="all", use_mmap=False, max_batch_tokens=256)
    with engine.load(golden("mixtral").path, parameters) as model:
        buffers: dict[str, int] = {}
        for buffer in (*model.weights.buffers, *model.cache.buffers):
            buffers[buffer.type.device.name] = buffers.get(buffer.type.device.name, 0) + buffer.size
        for usage in model.plan.usage:
            weights_and_cache = usage.weights + usage.kv
            assert weights_and_cache == pytest.approx(buffers.get(usage.device.name, 0), rel=0.02, abs=2048)
