"""The offload plan of mixtures of experts on made-up devices, checked by hand."""

from __future__ import annotations

from typing import Any

import pytest

from engine.errors import OutOfMemoryError
from engine.model.placement import Needs, Part, Plan, plan
from support.fakes.devices import cpu, device, params

EXPERT_BYTES, OTHER_BYTES = 80, 20  # of each layer


def needs(n_dense: int = 0, mapped: int = 0) -> Needs:
    """Four layers of 100, the first `n_dense` without experts; the output 20."""
    layer = Part(100, 1, 100 * mapped, EXPERT_BYTES, EXPERT_BYTES * mapped)
    layers = (Part(100, 1, 100 * mapped),) * n_dense + (layer,) * (4 - n_dense)
    return Needs(input=Part(10), layers=layers, output=Part(20), compute=5, compute_elsewhere=7)


def make(free: int, model: Needs | None = None, **more: Any) -> Plan:
    return plan(model or needs(), [device("G", free), cpu(5000)], params(**more), 10)


# All layers: 4 * (100 + 10 cells) + 20 + 5 = 465, and a tenth of the device stays free where it can.


def test_cpu_moe_leaves_all_experts_on_the_cpu() -> None:
    p = make(1000, cpu_experts="all")
    gpu, cpu = p.usage
    assert p.layers == ("G",) * 5
    assert p.cpu_experts == 4
    assert (gpu.weights, cpu.weights, cpu.mapped) == (4 * OTHER_BYTES + 20, 10 + 4 * EXPERT_BYTES, 0)
    assert cpu.compute == 7  # it has no layer, but computes experts
    assert "experts on the CPU: those of layers 0-3" in p.table()


def test_mapped_experts_stay_mapped() -> None:
    cpu = make(1000, needs(mapped=1), cpu_experts="all").usage[1]
    assert (cpu.weights, cpu.mapped) == (10, 4 * EXPERT_BYTES)


def test_n_cpu_moe_leaves_the_first_layers_experts_on_the_cpu() -> None:
    p = make(1000, cpu_experts=1)
    assert (p.cpu_experts, p.usage[0].weights, p.usage[1].weights) == (1, 340, 10 + EXPERT_BYTES)
    assert make(1000, cpu_experts=99).cpu_experts == 4
    assert make(1000).cpu_experts == 0


def test_experts_of_a_layer_on_the_cpu_are_counted_once() -> None:
    p = make(1000, cpu_experts=3, gpu_layers=3)
    assert p.layers == ("CPU", "CPU", "G", "G", "G")
    assert (p.usage[0].weights, p.usage[1].weights) == (OTHER_BYTES + 100 + 20, 210 + EXPERT_BYTES)


@pytest.mark.parametrize(
    ("free", "gpu_layers", "cpu_experts"),
    [
        (520, 5, 0),
        (465, 5, 1),  # with a margin, 385 of 465
        (400, 5, 2),
        (175, 5, 4),  # 145 of 175
        (140, 4, 4),
        (60, 1, 0),  # the output alone
    ],
)
def test_auto_moves_experts_before_whole_layers(free: int, gpu_layers: int, cpu_experts: int) -> None:
    p = make(free, gpu_layers="auto")
    assert (p.gpu_layers, p.cpu_experts) == (gpu_layers, cpu_experts)
    assert p.fits


def test_auto_notes_that_experts_are_on_the_cpu() -> None:
    assert make(400).notes == ("not all experts fit on the GPU: the others are on the CPU",)


def test_auto_with_n_cpu_moe_0_moves_no_experts() -> None:
    p = make(400, gpu_layers="auto", cpu_experts=0)
    assert (p.gpu_layers, p.cpu_experts) == (4, 0)


def test_auto_keeps_requested_experts_on_the_cpu() -> None:
    p = make(1000, gpu_layers="auto", cpu_experts=3)
    assert (p.gpu_layers, p.cpu_experts) == (5, 3)


def test_dense_layers_have_no_experts_to_move() -> None:
    p = make(1000, needs(n_dense=4), cpu_experts="all")
    assert p.cpu_experts == 0
    assert p.notes == ("cpu_moe and n_cpu_moe have no effect: the model has no experts",)
    p = make(1000, needs(n_dense=2), cpu_experts=2)
    assert (p.cpu_experts, p.usage[0].weights) == (2, 420)


def test_a_refusal_says_which_experts_would_have_to_move() -> None:
    with pytest.raises(OutOfMemoryError, match=r"n_cpu_moe=1 would fit"):
        make(400, gpu_layers="all", use_gpu=True)


def test_tensors_that_are_elsewhere_count_on_their_devices() -> None:
    model = Needs(
        input=Part(10),
        layers=(Part(100, 1),) * 4,
        output=Part(20),
        compute=5,
        elsewhere={"G": Part(50), "CPU": Part(30, 0, 30)},
        compute_elsewhere=7,
    )
    gpu, cpu = make(1000, model, gpu_layers=1).usage
    assert (gpu.weights, cpu.weights, cpu.mapped) == (20 + 50, 410, 30)
    gpu, cpu = make(1000, model, gpu_layers=0).usage
    assert (gpu.weights, gpu.compute, cpu.compute) == (50, 7, 7)
    assert make(480, model, gpu_layers="auto").gpu_layers == 4
