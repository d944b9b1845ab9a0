"""How many cells the cache gets, and the limit for all devices together."""

import pytest

from engine.errors import OutOfMemoryError
from engine.model.placement import Needs, Part
from engine.model.placement_types import WindowSize
from support.fakes.devices import cpu, device, make, needs


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
def test_pool_size_follows_free_memory_and_parallel(free, n_cells):
    p = make([cpu(free)], n_ctx=100, parallel=8)
    assert p.n_cells == n_cells
    assert p.usage[0].kv == 4 * n_cells
    assert p.fits


def test_cells_that_are_not_a_multiple_of_a_step_are_bounded_by_one_that_is():
    assert make([cpu(100_000)], n_ctx=50, parallel=2).n_cells == 100
    assert make([cpu(600)], n_ctx=50, parallel=2).n_cells == 96  # 450 - 65 = 385 hold 96


def test_cache_too_small_for_one_session_is_refused():
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


def test_requested_cells_are_allocated():
    p = make([cpu()], kv_cells=77, parallel=8)
    assert p.n_cells == 77


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


def test_layers_with_a_window_have_a_mask_of_their_own():
    model = Needs(
        input=Part(10),
        layers=(Part(10, 1), Part(10, window_row=1)) * 2,
        output=Part(10),
        compute=5,
        compute_cell={"G": 6},
        compute_input=3,
        mask_cell=2,
        windows=WindowSize(one=4, running=20, checkpoints=1),
    )
    both = [device("G", 2000), cpu()]
    gpu, host = make(both, model=model, kv_cells=100).usage
    assert (gpu.n_cells, gpu.n_rows) == (100, 24)
    assert (gpu.working, host.working) == (5 + 6 * 100 + 2 * 24, 3 + 2 * 100 + 2 * 24)
    gpu, _ = make(both, model=model, kv_cells=100, gpu_layers=2).usage  # the output and a layer with a window
    assert gpu.working == 5 + 6 * 24
    assert make([cpu()], model=model, kv_cells=100).usage[0].working == 5  # our kernel needs no masks


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


def test_a_cache_of_automatic_size_leaves_what_other_devices_take_below_a_limit():
    """Alone the GPU could have 64 cells: 360 - 55 hold 76. With 205 on the CPU, 400 - 260 hold 35."""
    p = make([device("G", 1000), cpu()], model=needs(embedding=200), parallel=100, memory_limit=400)
    assert p.layers == ("G",) * 5
    assert p.n_cells == 32
    assert p.total == 50 + 5 + 4 * 32 + 200 + 5


def test_a_limit_counts_mapped_weights():
    model = needs(mapped=True)
    assert make([cpu()], model=model, memory_limit=105).n_cells == 10
    with pytest.raises(OutOfMemoryError, match="the limit leaves"):
        make([cpu()], model=model, memory_limit=104)
