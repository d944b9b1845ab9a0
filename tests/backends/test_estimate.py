"""What a plan says that each device needs is what is then allocated, within 10 percent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import engine
from bench.random_model import Shape, write
from engine.ggml.backend import add_rpc_server, devices
from engine.model import rpc


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("estimate") / "model.gguf"
    write(made, Shape("estimated", 4, 512, 8, 2, 1408, 8000), "q8_0")
    return made


def allocated(model: engine.Model) -> dict[str, int]:
    """Bytes of weights, cache and compute buffers by device."""
    found = dict(model.describe()["compute_bytes"])
    for buffer in (*model.weights.buffers, *model.cache.buffers):
        name = buffer.type.device.name
        found[name] = found.get(name, 0) + buffer.size
    return found


@pytest.mark.parametrize("layers", [0, 2, "all"])
@pytest.mark.parametrize("flash_attn", ["auto", "off"])
@pytest.mark.parametrize("where", ["CPU", "CLBlast0", "RPC"])
def test_the_plan_is_near_the_truth(
    where: str, flash_attn: str, layers: Any, path: Path, request: pytest.FixtureRequest
) -> None:
    more: dict[str, Any] = {"use_gpu": where != "CPU"}
    if where == "RPC":
        address = request.getfixturevalue("rpc_cpu")
        rpc.handshake(address)
        add_rpc_server(address)
        where = next(d.name for d in devices() if d.description == address)
        more["rpc"] = (address,)
    if where != "CPU":
        if layers == 0:
            more["use_gpu"] = "auto"
        more |= {"devices": (where,), "gpu_layers": layers}
    params = engine.ModelParameters(
        context_size=1024, parallel=4, flash_attn=flash_attn, use_mmap=False, n_threads=1, **more
    )
    device = next(d for d in devices() if d.name == where)
    free = device.free
    with engine.load(path, params) as model:
        with model.start_session() as session:
            session.feed_prompt([5] * 700)
        found = allocated(model)
        if where == "CLBlast0":  # which also counts what it turns weights to float32 in
            found[where] = free - device.free
        for usage in model.plan.usage:
            if usage.needed:
                assert usage.needed == pytest.approx(found.get(usage.device.name, 0), rel=0.1)
