"""Which device gets which layers, on made-up devices whose sizes can be added up by hand."""

import pytest

from engine.errors import ConfigError, OutOfMemoryError
from engine.model.placement import Needs, Part
from support.fakes.devices import cpu, device, make, needs


def test_plan_without_gpus_uses_the_cpu():
    p = make([cpu()])
    assert p.layers == ("CPU",) * 5
    assert p.n_cells == 10
    (u,) = p.usage
    assert (u.weights, u.kv, u.compute, u.needed) == (60, 40, 5, 105)
    assert p.gpu_layers == 0
    assert p.fits
    assert p.notes == ("no GPU found: all layers are on the CPU",)


def test_one_large_gpu_gets_all_layers_but_the_embedding():
    p = make([device("G", 1000), cpu()])
    assert p.layers == ("G",) * 5
    gpu, host = p.usage
    assert (gpu.weights, gpu.kv, gpu.compute) == (50, 40, 5)
    assert (host.weights, host.kv, host.compute) == (10, 0, 5)
    assert p.gpu_layers == 5
    assert p.notes == ()


@pytest.mark.parametrize(
    ("n", "layers"),
    [
        (0, "CCCCC"),
        (1, "CCCCG"),  # the output first, as in llama.cpp
        (3, "CCGGG"),
        (5, "GGGGG"),
        (99, "GGGGG"),
    ],
)
def test_gpu_layers_offloads_the_last_layers(n, layers):
    p = make([device("G", 1000), cpu()], gpu_layers=n)
    assert "".join(name[0] for name in p.layers) == layers
    assert p.gpu_layers == min(n, 5)


def test_the_cache_follows_its_layer():
    model = Needs(
        input=Part(1),
        layers=(Part(10, 1), Part(10, 2), Part(10, 4)),
        output=Part(1),
        compute={"G": 7, "CPU": 3},
    )
    p = make([device("G", 1000), cpu()], model=model, gpu_layers=3)
    gpu, host = p.usage
    assert (gpu.kv_cell, host.kv_cell) == (6, 1)
    assert (gpu.compute, host.compute) == (7, 3)


def test_use_gpu_false_ignores_gpus():
    p = make([device("G", 1000), cpu()], use_gpu=False)
    assert p.gpu_layers == 0
    assert p.notes == ()
    p = make([device("G", 1000), cpu()], use_gpu=False, gpu_layers=3)
    assert p.notes == ("gpu_layers has no effect, since use_gpu is false",)


def test_two_gpus_are_filled_evenly():
    p = make([device("A", 1000), device("B", 1000), cpu()], model=needs(n_layers=9))
    assert "".join(p.layers) == "AAAAABBBBB"
    # at 25 %: 75 - 5 hold 7 layers of 10, and 25 - 5 the output; at 24 % one layer is left over
    p = make([device("A", 300), device("B", 100), cpu()], model=needs(n_layers=7, kv_cell=0))
    assert "".join(p.layers) == "AAAAAAAB"


def test_uneven_layers_fit_where_shares_by_memory_would_not():
    """By free memory each GPU would get half of the layers; the big ones at the end need another border."""
    model = Needs(input=Part(0), layers=tuple(map(Part, (10, 10, 10, 10, 80, 10))), output=Part(0))
    p = make([device("A", 60), device("B", 95), cpu()], model=model, gpu_layers=7, n_ctx=1)
    assert "".join(p.layers) == "AAAABBB"
    assert p.fits


@pytest.mark.parametrize(
    ("split", "layers"),
    [((1.0, 1.0), "AAAAABBBBB"), ((4.0, 1.0), "AAAAAAAABB"), ((0.0, 1.0), "B" * 10), ((1.0,), "A" * 10)],
)
def test_tensor_split_sets_the_shares(split, layers):
    p = make([device("A", 1000), device("B", 1000), cpu()], model=needs(n_layers=9), tensor_split=split)
    assert "".join(p.layers) == layers


@pytest.mark.parametrize(
    "split", [(1.0, 1.0, 1.0), (0.0, 0.0), (-1.0, 2.0), (float("nan"), 1.0), (float("inf"), 1.0)]
)
def test_invalid_tensor_split_is_refused(split):
    with pytest.raises(ConfigError, match="tensor_split"):
        make([device("A", 1000), device("B", 1000), cpu()], tensor_split=split)


def test_an_unused_gpu_needs_no_compute_memory():
    p = make([device("A", 1000), device("B", 3), cpu()], tensor_split=(1.0, 0.0))
    assert [u.compute for u in p.usage] == [5, 0, 5]
    assert p.fits


def test_contradictory_parameters_are_refused():
    both = [device("G", 1000), cpu()]
    with pytest.raises(ConfigError, match="use_gpu is true, but gpu_layers is 0"):
        make(both, use_gpu=True, gpu_layers=0)
    with pytest.raises(ConfigError, match="device G is requested, but use_gpu is false"):
        make(both, use_gpu=False, devices=("G",))
    with pytest.raises(ConfigError, match="gpu_layers is -1"):
        make(both, gpu_layers=-1)
    with pytest.raises(ConfigError, match="kv_cells is 9, less than one session of 10 tokens"):
        make(both, kv_cells=9, context_size=10)
    with pytest.raises(ConfigError, match="kv_cells is 0"):
        make(both, kv_cells=0)


def test_use_gpu_true_without_enough_memory_is_refused():
    """5 layers: 50 weights + 40 cache + 5 compute."""
    with pytest.raises(OutOfMemoryError) as caught:
        make([device("G", 94), cpu()], use_gpu=True)
    error = caught.value
    assert (error.device, error.needed, error.free) == ("G", 95, 94)
    assert str(error) == (
        "G has 94 B free (94 bytes), but layers 0-3, output with 10 cells of cache need 95 B "
        "(95 bytes: weights 50 B, cache 40 B, compute 5 B); gpu_layers=4 would fit"
    )
    (table,) = error.__notes__
    assert "1 B too much" in table
    assert make([device("G", 95), cpu()], use_gpu=True).gpu_layers == 5


def test_the_suggested_number_of_layers_fits():
    with pytest.raises(OutOfMemoryError, match="gpu_layers=2 would fit"):
        make([device("G", 40), cpu()], gpu_layers=4)
    assert make([device("G", 40), cpu()], gpu_layers=2).fits
    with pytest.raises(OutOfMemoryError):
        make([device("G", 40), cpu()], gpu_layers=3)


def test_the_suggested_context_fits():
    model = needs(kv_cell=10)
    with pytest.raises(OutOfMemoryError, match="context_size=96 would fit") as caught:
        make([cpu(65 + 40 * 100)], model=model, n_ctx=101)
    assert (caught.value.device, caught.value.needed) == ("CPU", 65 + 40 * 101)
    assert make([cpu(65 + 40 * 100)], model=model, n_ctx=96).fits
    with pytest.raises(OutOfMemoryError, match="kv_cells=96 would fit"):
        make([cpu(65 + 40 * 100)], model=model, n_ctx=64, kv_cells=101)


def test_gpu_too_small_for_any_layer_is_refused():
    with pytest.raises(OutOfMemoryError, match="no layer fits: run it on the CPU with use_gpu=false"):
        make([device("G", 10), cpu()], use_gpu=True)


def test_model_too_large_for_all_devices_is_refused():
    with pytest.raises(OutOfMemoryError, match="use a smaller model or a stronger quantization") as caught:
        make([cpu(50)])
    assert (caught.value.device, caught.value.needed, caught.value.free) == ("CPU", 105, 50)


def test_weights_that_stay_in_the_mapped_file_need_no_memory():
    p = make([cpu(50)], model=needs(mapped=True))
    (u,) = p.usage
    assert (u.weights, u.mapped, u.needed) == (0, 60, 45)
    # on a GPU they do
    with pytest.raises(OutOfMemoryError):
        make([device("G", 50), cpu()], model=needs(mapped=True), use_gpu=True)


def test_auto_fills_the_free_memory_with_a_margin():
    """A tenth of 80 stays free: 72 - 5 compute = 67 hold the output (10) and two layers (20 each)."""
    p = make([device("G", 80), cpu()], gpu_layers="auto")
    assert "".join(name[0] for name in p.layers) == "CCGGG"
    assert p.notes == ("3 of 5 layers fit on the GPU: the others are on the CPU",)
    p = make([device("G", 80), cpu()], gpu_layers="auto", use_gpu=True)
    assert p.gpu_layers == 3


def test_use_gpu_auto_falls_back_to_the_cpu_with_a_note():
    p = make([device("G", 80), cpu()])
    assert p.gpu_layers == 3
    assert p.notes
    p = make([device("G", 9), cpu()])
    assert p.gpu_layers == 0
    assert p.notes == ("0 of 5 layers fit on the GPU: the others are on the CPU",)


def test_auto_spreads_layers_over_several_gpus():
    p = make([device("A", 45), device("B", 45), cpu()], gpu_layers="auto")
    assert "".join(name[0] for name in p.layers) == "CCABB"
    assert p.fits


def test_auto_with_too_small_a_cpu_is_refused():
    with pytest.raises(OutOfMemoryError):
        make([device("G", 80), cpu(20)], gpu_layers="auto")


def test_a_number_of_layers_is_never_reduced():
    with pytest.raises(OutOfMemoryError, match="G has 60 B free"):
        make([device("G", 60), cpu()], gpu_layers=4)


def test_integrated_gpus_share_the_memory_of_the_host():
    igpu = device("iG", 150, "igpu", "Vulkan")
    p = make([igpu, cpu(150)], use_gpu=True)
    assert p.gpu_layers == 5
    # each alone would fit, both together do not
    with pytest.raises(OutOfMemoryError) as caught:
        make([device("iG", 100, "igpu", "Vulkan"), cpu(100)], use_gpu=True)
    assert caught.value.device == "iG"
    assert caught.value.needed > caught.value.free
    assert "iG and CPU share memory: 10 B too much" in caught.value.__notes__[0]


def test_input_embedding_moves_if_no_layer_is_left_on_the_cpu():
    model = Needs(
        input=Part(10, 0, 0), layers=(Part(10, 1, 0),) * 4, output=Part(10, 0, 0), compute=5, input_moves=7
    )
    gpu, host = make([device("G", 1000), cpu()], model=model).usage
    assert (gpu.weights, host.weights, host.compute) == (57, 0, 0)
    gpu, host = make([device("G", 1000), cpu()], model=model, gpu_layers=4).usage
    assert (gpu.weights, host.weights, host.compute) == (40, 20, 5)
    a, b, host = make([device("A", 500), device("B", 500), cpu()], model=model).usage
    assert a.weights == 10 * len(a.parts) + 7
    assert b.weights == 10 * len(b.parts)
    with pytest.raises(OutOfMemoryError):
        make([device("G", 50 + 5 + 40 + 6), cpu()], model=model, use_gpu=True)
    make([device("G", 50 + 5 + 40 + 7), cpu()], model=model, use_gpu=True)
