"""POST /v1/plan."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import get_args

import pytest

from engine.config import KV_TYPES
from server.api.ggserve.plan import KvType
from server.models.bundled import bundled_model
from support.api.http import client, error_of
from support.fakes.engine import make_app
from support.quick import every

pytestmark = pytest.mark.asyncio


async def test_plan_of_a_served_model_gives_layers_cells_and_memory():
    async with client(make_app(use_gpu=False)) as http:
        data = (await http.post("/v1/plan", json={"context_size": 256, "parallel": 2})).json()
    assert data["fits"] is True
    assert set(data["layers"]) == {"CPU"}
    assert data["kv_cells"] == 512
    assert data["devices"]["CPU"]["needed"] > 0


async def test_plan_that_does_not_fit_says_so():
    async with client(make_app(use_gpu=False)) as http:
        data = (await http.post("/v1/plan", json={"context_size": 1 << 26})).json()
    assert data["fits"] is False
    assert "would fit" in data["problem"]


@pytest.mark.e2e
async def test_plan_takes_only_gguf_files_of_the_models_folder(tmp_path: Path):
    shutil.copy(bundled_model(), tmp_path / "stories.gguf")
    shutil.copy(bundled_model(), tmp_path / "b.gguf")
    (tmp_path / "bad.gguf").write_bytes(b"GGUF")
    async with client(make_app(use_gpu=False, model=[str(tmp_path / "stories.gguf")])) as http:
        assert (await http.post("/v1/plan", json={"file": "b.gguf"})).json()["fits"] is True
        for name in ("../b.gguf", "/etc/passwd", "absent.gguf", "b.txt", ".."):
            assert error_of(await http.post("/v1/plan", json={"file": name}), 400)["param"] == "file"
        error = error_of(await http.post("/v1/plan", json={"file": "bad.gguf"}), 400)
    assert error["param"] == "file"
    assert error["message"].startswith("file: bad.gguf: truncated")
    assert str(tmp_path) not in error["message"]


async def test_plan_of_invalid_fields_is_refused():
    async with client() as http:
        error_of(await http.post("/v1/plan", json={"model": "x"}), 404)
        error_of(await http.post("/v1/plan", json={"gpu_layers": -1}), 400)
        error = error_of(await http.post("/v1/plan", json={"use_gpu": True, "device": ["nothing"]}), 400)
        assert "no device nothing" in error["message"]
        assert error["param"] == "device"


@pytest.mark.e2e
async def test_plan_takes_experts_and_tensors_on_the_cpu():
    async with client(make_app(use_gpu=False)) as http:
        body = {"n_cpu_moe": 2, "override_tensor": ["exps=CPU"]}
        data = (await http.post("/v1/plan", json=body)).json()
        assert (data["fits"], data["cpu_experts"]) == (True, 0)  # it has no experts
        for override in ("exps=nothing", "(=CPU"):
            error = error_of(await http.post("/v1/plan", json={"override_tensor": [override]}), 400)
            assert error["param"] == "override_tensor"
        error = error_of(await http.post("/v1/plan", json={"cpu_moe": True, "n_cpu_moe": 1}), 400)
        assert error["param"] == "n_cpu_moe"


@pytest.mark.parametrize(
    ("started", "requested"),
    every(
        3,
        [
            ({"n_cpu_moe": 1}, {"cpu_moe": True}),
            ({"cpu_moe": True}, {"n_cpu_moe": 1}),
            ({"cpu_moe": True}, {"cpu_moe": False, "n_cpu_moe": 1}),
        ],
    ),
)
async def test_expert_placement_of_a_request_replaces_the_servers(started, requested):
    async with client(make_app(use_gpu=False, **started)) as http:
        answer = await http.post("/v1/plan", json=requested)
    assert answer.status_code == 200, answer.text


async def test_plan_takes_every_cache_type():
    assert set(get_args(KvType)) == set(KV_TYPES)


async def test_plan_beyond_the_process_limit_is_refused_until_one_ends():
    async with client(make_app(use_gpu=False)) as http:
        body = {"context_size": 256}
        responses = await asyncio.gather(*(http.post("/v1/plan", json=body) for _ in range(4)))
        assert sorted(response.status_code for response in responses) == [200, 200, 429, 429]
        refused = next(response for response in responses if response.status_code == 429)
        assert int(refused.headers["retry-after"]) > 0
        assert refused.json()["error"]["code"] == "plan_busy"
        assert (await http.post("/v1/plan", json=body)).status_code == 200
