"""What a plan says that each device needs is what is then allocated, within 10 percent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engine
from bench.random_model import Shape, write
from engine.ggml.backend import add_rpc_server, devices
from engine.model import rpc
from support.builders.golden import TinyModel, golden


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model_file = tmp_path_factory.mktemp("estimate") / "model.gguf"
    write(model_file, Shape("estimated", 4, 512, 8, 2, 1408, 8000), "q8_0")
    return model_file


def allocated(model: engine.Model) -> dict[str, int]:
    """Bytes of weights, cache and compute buffers by device."""
    description = dict(model.describe()["compute_bytes"])
    for buffer in (*model.weights.buffers, *model.cache.buffers):
        name = buffer.type.device.name
        description[name] = description.get(name, 0) + buffer.size
    return description


def wide_latents(path: Path) -> Path:
    """`deepseek2-v3` with heads and latents of a usual size."""
    model, rng = TinyModel.read(golden("deepseek2-v3").path), np.random.default_rng(1)
    n_embd, n_head, rank, n_rot, plain = 256, 16, 512, 64, 128
    for key, value in {
        "embedding_length": n_embd,
        "attention.head_count": n_head,
        "attention.kv_lora_rank": rank,
        "attention.key_length": rank + n_rot,
        "attention.value_length": rank,
        "attention.key_length_mla": plain + n_rot,
        "attention.value_length_mla": plain,
        "rope.dimension_count": n_rot,
        "context_length": 4096,
    }.items():
        model.set(key, value)
    q_rank = model.keys["deepseek2.attention.q_lora_rank"][0]
    shapes = {
        "attn_q_b": (n_head * (plain + n_rot), q_rank),
        "attn_kv_a_mqa": (rank + n_rot, n_embd),
        "attn_kv_a_norm": (rank,),
        "attn_k_b": (n_head, rank, plain),
        "attn_v_b": (n_head, plain, rank),
        "attn_output": (n_embd, n_head * plain),
    }
    for name, x in model.tensors.items():
        usual = tuple(n_embd if n == 24 else n for n in x.shape)
        shape = shapes.get(name.split(".")[-2], usual)
        model.tensors[name] = rng.normal(0, 0.05, shape).astype(np.float32)
    return model.write(path)


@pytest.mark.parametrize("flash_attn", ["auto", "off"])
@pytest.mark.parametrize("where", ["CPU", "CLBlast0"])
def test_plan_includes_latents(where: str, flash_attn: str, tmp_path: Path) -> None:
    params = engine.ModelParameters(
        use_gpu=where != "CPU",
        devices=(where,),
        context_size=1024,
        parallel=4,
        flash_attn=flash_attn,
        use_mmap=False,
        n_threads=1,
    )
    with engine.load(wide_latents(tmp_path / "latents.gguf"), params) as model:
        n_allocated = allocated(model)
        for usage in model.plan.usage:
            if usage.needed:
                assert usage.needed == pytest.approx(n_allocated.get(usage.device.name, 0), rel=0.1)


@pytest.mark.parametrize("flash_attn", ["auto", "on", "off"])
@pytest.mark.parametrize("where", ["CPU", "CLBlast0"])
def test_plan_includes_windows_and_their_masks(where: str, flash_attn: str, tmp_path: Path) -> None:
    model = TinyModel.read(golden("gemma3").path)
    model.set("context_length", 4096)
    params = engine.ModelParameters(
        use_gpu=where != "CPU",
        devices=(where,),
        context_size=2048,
        parallel=4,
        flash_attn=flash_attn,
        use_mmap=False,
        n_threads=1,
    )
    with engine.load(model.write(tmp_path / "windows.gguf"), params) as loaded:
        assert loaded.plan.has_windows
        n_allocated = allocated(loaded)
        for usage in loaded.plan.usage:
            if usage.needed:
                assert usage.needed == pytest.approx(n_allocated.get(usage.device.name, 0), rel=0.1)


@pytest.mark.parametrize("layers", [0, 2, "all"])
@pytest.mark.parametrize("flash_attn", ["auto", "off"])
@pytest.mark.parametrize("where", ["CPU", "CLBlast0", "RPC"])
def test_plan_is_close_to_the_allocated_memory(
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
        n_allocated = allocated(model)
        if where == "CLBlast0":  # which also counts what it turns weights to float32 in
            n_allocated[where] = free - device.free
        for usage in model.plan.usage:
            if usage.needed:
                assert usage.needed == pytest.approx(n_allocated.get(usage.device.name, 0), rel=0.1)
