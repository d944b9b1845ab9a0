"""The plan as a table, and estimates of working memory."""

from engine.model.placement_types import estimate_compute, estimate_compute_cell
from support.fakes.devices import cpu, device, make, needs

GIB = 1 << 30


def test_table_lists_layers_and_memory_of_each_device():
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


def test_compute_estimate_grows_with_its_inputs():
    base = {"rows": 512, "n_embd": 2048, "n_ff": 5632, "n_vocab": 32000, "n_outputs": 8}
    small = estimate_compute(**base)
    assert 4 * 512 * 3 * 5632 < small < 100 << 20
    for name, value in base.items():
        assert estimate_compute(**base | {name: 2 * value}) > small
    cells = {kind: estimate_compute_cell(rows=512, n_head=32, attention=kind) for kind in ("paged", "flash")}
    assert cells == {"paged": 0, "flash": 2 * 512}
    assert estimate_compute_cell(rows=512, n_head=32, attention="explicit") == 2 * 512 + 4 * 512 * 32


def test_device_without_used_memory_has_less_free():
    gpu = device("CUDA0", 10)
    assert [gpu.without(n).free for n in (0, 3, 12)] == [10, 7, 0]
    assert gpu.without(3).total == gpu.total
