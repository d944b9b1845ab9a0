"""Which devices may get layers."""

import pytest

from engine.errors import DeviceError
from engine.model.placement import select_gpus
from support.fakes.devices import cpu, device, make, params


def names(devices, /, **kw):
    return [d.name for d in select_gpus(devices, params(**kw))]


def test_each_card_is_selected_once_by_default_and_named_ones_on_request():
    cuda, cl = device("CUDA0", 9), device("CL0", 9, backend="CLBlast")
    igpu = device("Vulkan1", 9, "igpu", "Vulkan")
    rpc = device("RPC[10.0.0.2]", 9, backend="RPC")
    blas = device("BLAS", 0, "accel", "BLAS")
    assert names([cl, cuda, cpu()]) == ["CUDA0"]  # one card seen by two backends is used once
    assert names([cl, cuda, cpu()], devices=("cl0",)) == ["CL0"]
    assert names([cl, cuda, cpu()], devices=("CUDA0", "CL0", "CL0")) == ["CUDA0", "CL0"]
    assert names([cl, cpu()]) == ["CL0"]
    assert names([igpu, cuda, cpu()]) == ["CUDA0"]
    assert names([igpu, cpu()]) == ["Vulkan1"]
    assert names([cuda, rpc, cpu()]) == ["CUDA0", "RPC[10.0.0.2]"]
    assert names([blas, cpu()]) == []
    assert names([device("X", 9, backend="New"), cpu()]) == ["X"]
    assert names([cuda, cpu()], devices=("CPU",)) == []
    assert names([cuda, cpu()], use_gpu=False) == []


def test_unknown_device_is_refused():
    with pytest.raises(DeviceError, match="there is no device CUDA1; available: CUDA0, CPU"):
        make([device("CUDA0", 9), cpu()], devices=("CUDA1",))


@pytest.mark.parametrize("kw", [{}, {"devices": ("CPU",)}, {"gpu_layers": 3}, {"gpu_layers": "auto"}])
def test_use_gpu_true_without_a_gpu_is_refused(kw):
    """Never a silent run on the CPU."""
    with pytest.raises(DeviceError, match=r"no usable GPU \(available: CPU\); build with a GPU backend"):
        make([cpu(), device("BLAS", 0, "accel")][:1], use_gpu=True, **kw)


def test_missing_cpu_device_is_an_error():
    with pytest.raises(DeviceError, match="no CPU device"):
        make([device("G", 1000)])
