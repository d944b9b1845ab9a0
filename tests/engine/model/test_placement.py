"""The offload plan on made-up devices. Sizes are small numbers, so that each case can be checked by hand."""

import pytest

from engine.config import ModelParameters
from engine.errors import ConfigError, DeviceError, OutOfMemoryError
from engine.model.placement import DeviceInfo, Needs, Part, estimate_compute, plan, select_gpus
from engine.model.placement_types import estimate_compute_cell
from engine.units import format_bytes

GIB = 1 << 30


def device(name, free, type="gpu", backend="CUDA"):
    return DeviceInfo(name=name, backend=backend, type=type, free=free, total=max(free, 1))


def cpu(free=1000):
    return device("CPU", free, "cpu", "CPU")


def needs(n_layers=4, weights=10, kv_cell=1, output=10, embedding=10, compute=5, mapped=False):
    def part(n, kv=0):
        return Part(n, kv, n if mapped else 0)

    return Needs(
        input=part(embedding),
        layers=(part(weights, kv_cell),) * n_layers,
        output=part(output),
        compute=compute,
    )


def params(**kw):
    # one session of 10 cells unless said otherwise
    return ModelParameters(**{"parallel": 1, **kw})


def make(found, *, n_ctx=10, model=None, **kw):
    return plan(model or needs(), found, params(**kw), n_ctx)


# -- where layers go ----------------------------------------


def test_cpu_only():
    p = make([cpu()])
    assert p.layers == ("CPU",) * 5
    assert p.n_cells == 10
    (u,) = p.usage
    assert (u.weights, u.kv, u.compute, u.needed) == (60, 40, 5, 105)
    assert p.gpu_layers == 0
    assert p.fits
    assert p.notes == ("no GPU found: all layers are on the CPU",)


def test_all_layers_on_one_gpu_but_the_embedding():
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
def test_a_number_of_layers(n, layers):
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
def test_tensor_split(split, layers):
    p = make([device("A", 1000), device("B", 1000), cpu()], model=needs(n_layers=9), tensor_split=split)
    assert "".join(p.layers) == layers


@pytest.mark.parametrize(
    "split", [(1.0, 1.0, 1.0), (0.0, 0.0), (-1.0, 2.0), (float("nan"), 1.0), (float("inf"), 1.0)]
)
def test_tensor_split_that_makes_no_sense(split):
    with pytest.raises(ConfigError, match="tensor_split"):
        make([device("A", 1000), device("B", 1000), cpu()], tensor_split=split)


def test_an_unused_gpu_needs_no_compute_memory():
    p = make([device("A", 1000), device("B", 3), cpu()], tensor_split=(1.0, 0.0))
    assert [u.compute for u in p.usage] == [5, 0, 5]
    assert p.fits


# -- which devices ----------------------------------------


def names(found, **kw):
    return [d.name for d in select_gpus(found, params(**kw))]


def test_choice_of_devices():
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


def test_unknown_device():
    with pytest.raises(DeviceError, match="there is no device CUDA1; available: CUDA0, CPU"):
        make([device("CUDA0", 9), cpu()], devices=("CUDA1",))


@pytest.mark.parametrize("kw", [{}, {"devices": ("CPU",)}, {"gpu_layers": 3}, {"gpu_layers": "auto"}])
def test_use_gpu_true_without_a_gpu(kw):
    """Never a silent run on the CPU."""
    with pytest.raises(DeviceError, match=r"no usable GPU \(available: CPU\); build with a GPU backend"):
        make([cpu(), device("BLAS", 0, "accel")][:1], use_gpu=True, **kw)


def test_contradictions():
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


def test_no_cpu():
    with pytest.raises(DeviceError, match="no CPU device"):
        make([device("G", 1000)])


# -- what does not fit ----------------------------------------


def test_use_gpu_true_that_does_not_fit():
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


def test_nothing_fits_the_gpu():
    with pytest.raises(OutOfMemoryError, match="no layer fits: run it on the CPU with use_gpu=false"):
        make([device("G", 10), cpu()], use_gpu=True)


def test_nothing_fits_at_all():
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


# -- falling back ----------------------------------------


def test_auto_fills_the_free_memory_with_a_margin():
    """A tenth of 80 stays free: 72 - 5 compute = 67 hold the output (10) and two layers (20 each)."""
    p = make([device("G", 80), cpu()], gpu_layers="auto")
    assert "".join(name[0] for name in p.layers) == "CCGGG"
    assert p.notes == ("3 of 5 layers fit the GPU: the others are on the CPU",)
    p = make([device("G", 80), cpu()], gpu_layers="auto", use_gpu=True)
    assert p.gpu_layers == 3


def test_use_gpu_auto_falls_back_and_says_so():
    p = make([device("G", 80), cpu()])
    assert p.gpu_layers == 3
    assert p.notes
    p = make([device("G", 9), cpu()])
    assert p.gpu_layers == 0
    assert p.notes == ("0 of 5 layers fit the GPU: the others are on the CPU",)


def test_auto_over_several_gpus():
    p = make([device("A", 45), device("B", 45), cpu()], gpu_layers="auto")
    assert "".join(name[0] for name in p.layers) == "CCABB"
    assert p.fits


def test_auto_does_not_hide_that_the_cpu_is_too_small():
    with pytest.raises(OutOfMemoryError):
        make([device("G", 80), cpu(20)], gpu_layers="auto")


def test_a_number_of_layers_is_never_reduced():
    with pytest.raises(OutOfMemoryError, match="G has 60 B free"):
        make([device("G", 60), cpu()], gpu_layers=4)


# -- cells ----------------------------------------


@pytest.mark.parametrize(
    ("free", "n_cells"),
    [
        (100_000, 800),  # parallel x context
        (4800, 800),  # a quarter stays free: 3600 - 65 >= 800 * 4
        (3200, 576),  # (2400 - 65) / 4 = 583, in steps of 32
        (600, 100),  # (450 - 65) / 4 = 96 would be less than one session
        (465, 100),  # one session is allowed everything
    ],
)
def test_cells_of_the_pool(free, n_cells):
    p = make([cpu(free)], n_ctx=100, parallel=8)
    assert p.n_cells == n_cells
    assert p.usage[0].kv == 4 * n_cells
    assert p.fits


def test_one_session_must_fit():
    with pytest.raises(OutOfMemoryError, match="with 100 cells of cache need"):
        make([cpu(464)], n_ctx=100, parallel=8)


def test_the_smallest_device_bounds_the_cells():
    """Layers 0 and 1 on the CPU with much memory, 2 and 3 on the GPU with 300: (300 - 30 - 35) / 2 = 117."""
    p = make([device("G", 300), cpu(100_000)], n_ctx=50, parallel=8, gpu_layers=3)
    assert p.n_cells == 96
    assert [u.kv_cell for u in p.usage] == [2, 2]


def test_layers_come_before_cells():
    p = make([device("G", 300), cpu(100_000)], n_ctx=40, parallel=8)
    assert p.gpu_layers == 5
    assert p.n_cells == 40  # (300 - 30 - 55) / 4 = 53, in steps of 32, is less than one session
    assert p.fits


def test_cells_can_be_numbered_in_32_bits():
    p = make([cpu(1 << 50)], n_ctx=1 << 28, parallel=1 << 16)
    assert p.n_cells == 1 << 30


def test_mapped_weights_count_when_the_pool_grows():
    """They need no memory, but without it each step would read the file again."""
    grown = make([cpu(2000)], n_ctx=100, parallel=8, model=needs(weights=300, mapped=True))
    unmapped = make([cpu(2000)], n_ctx=100, parallel=8, model=needs(weights=10))
    assert grown.n_cells < unmapped.n_cells
    assert grown.n_cells == 100


def test_cells_requested():
    p = make([cpu()], kv_cells=77, parallel=8)
    assert p.n_cells == 77


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


# -- texts ----------------------------------------


def test_table():
    p = make(
        [device("CUDA0", 3 * GIB), cpu(8 * GIB)],
        gpu_layers=3,
        model=needs(weights=GIB // 2, compute=GIB // 4),
    )
    assert p.table().splitlines() == [
        "device  backend  layers       weights  mapped  cache    compute   needed     free",
        "CUDA0   CUDA     2-3, output  1.0 GiB     0 B   20 B  256.0 MiB  1.3 GiB  3.0 GiB",
        "CPU     CPU      0-1          1.0 GiB     0 B   20 B  256.0 MiB  1.3 GiB  8.0 GiB",
        "cache: 10 cells",
    ]


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536 << 10, "1.5 MiB"),
        (GIB, "1.0 GiB"),
        (5000 * GIB, "5000.0 GiB"),
    ],
)
def test_human(n, text):
    assert format_bytes(n) == text


def test_compute_grows_with_what_it_depends_on():
    base = {"rows": 512, "n_embd": 2048, "n_ff": 5632, "n_vocab": 32000, "n_outputs": 8}
    small = estimate_compute(**base)
    assert 4 * 512 * 3 * 5632 < small < 100 << 20
    for name, value in base.items():
        assert estimate_compute(**base | {name: 2 * value}) > small
    cells = {kind: estimate_compute_cell(rows=512, n_head=32, attention=kind) for kind in ("paged", "flash")}
    assert cells == {"paged": 0, "flash": 2 * 512}
    assert estimate_compute_cell(rows=512, n_head=32, attention="explicit") == 2 * 512 + 4 * 512 * 32


def test_masks_and_scores_are_part_of_what_a_cell_costs():
    """A device that keeps scores gets fewer cells, and the CPU holds the mask of layers that it has not."""
    model = Needs(
        input=Part(10, 0, 0),
        layers=(Part(10, 1, 0),) * 4,
        output=Part(10, 0, 0),
        compute=5,
        compute_cell={"G": 6},
        compute_input=3,
        mask_cell=2,
    )
    p = make([device("G", 1000), cpu()], model=model, parallel=100)
    gpu, host = p.usage
    assert (gpu.working, host.working) == (5 + 6 * p.n_cells, 3 + 2 * p.n_cells)
    assert gpu.needed <= 900  # the margin is left
    assert gpu.needed + 32 * (4 + 6) > 900
    assert make([cpu()], model=model).usage[0].working == 5


def test_the_input_moves_where_no_layer_is_left_on_the_cpu():
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


# -- a limit for all devices together ------------------------


def test_a_limit_bounds_the_cache_and_the_sum_of_all_devices():
    # 60 of weights, 5 of compute, 4 for each cell; a quarter of what is free stays unused
    assert make([cpu()], parallel=100, memory_limit=400).n_cells == (300 - 65) // 4 // 32 * 32
    assert make([cpu()], memory_limit=105).n_cells == 10
    with pytest.raises(OutOfMemoryError, match="104"):
        make([cpu()], memory_limit=104)
    both = [device("G", 1000), cpu()]  # 95 on the GPU, and the embedding with working memory on the CPU
    total = sum(u.needed for u in make(both).usage)
    assert make(both, memory_limit=total).layers == ("G",) * 5
    with pytest.raises(OutOfMemoryError, match="the limit leaves"):
        make(both, memory_limit=total - 1)


def test_a_limit_counts_mapped_weights():
    model = needs(mapped=True)
    assert make([cpu()], model=model, memory_limit=105).n_cells == 10
    with pytest.raises(OutOfMemoryError, match="the limit leaves"):
        make([cpu()], model=model, memory_limit=104)
