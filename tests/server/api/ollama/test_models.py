"""What clients are told of models, and what they cannot change."""

from __future__ import annotations

from datetime import datetime

import pytest

from server.api.ollama.models import OLLAMA_VERSION
from support.api.chat import QWEN, app
from support.api.http import client
from support.api.routes import able_engine, refusal
from support.fakes.engine import FakeEngine, make_app

pytestmark = pytest.mark.asyncio
GIB = 1 << 30
INFO = {
    "architecture": "llama",
    "file_type": "Q4_K_M (15)",
    "n_params": 7_248_023_552,
    "size_bytes": 4 * GIB,
    "weight_bytes": 4 * GIB,
    "kv_bytes": GIB,
    "compute_bytes": {"CPU": 100, "CUDA0": 1000},
    "n_layer": 32,
    "n_embd": 4096,
    "n_ctx_train": 8192,
    "gpu_layers": 16,
    "path": "/secret/model.gguf",
    "generates": True,
}


def loaded(name: str = "stories") -> FakeEngine:
    engine = FakeEngine(name=name)
    engine.info = dict(INFO)
    return engine


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/", "/api/version", "/api/tags"])
async def test_head_and_get_tell_that_the_server_is_there(method, path):
    async with client() as http:
        assert (await http.request(method, path)).status_code == 200


async def test_version_is_that_of_ollamas_api():
    async with client() as http:
        version = (await http.get("/api/version")).json()["version"]
    assert version == OLLAMA_VERSION
    # VS Code, Codex (for Responses), Messages: the least versions that clients ask for
    assert [int(part) for part in version.split(".")] >= max([0, 6, 4], [0, 13, 4], [0, 14, 0])


async def test_tags_list_the_served_models_with_what_they_are():
    engines = {name: loaded(name) for name in ("one", "two:7b")}
    async with client(make_app(engines)) as http:
        one, two = (await http.get("/api/tags")).json()["models"]
    assert (one["name"], one["model"], two["name"]) == ("one:latest", "one:latest", "two:7b")
    assert one["size"] == 4 * GIB
    assert one["details"] == {
        "parent_model": "",
        "format": "gguf",
        "family": "llama",
        "families": ["llama"],
        "parameter_size": "7.248B",
        "quantization_level": "Q4_K_M",
        "context_length": 8192,
        "embedding_length": 4096,
    }
    assert len(one["digest"]) == 64
    assert one["digest"] != two["digest"]
    assert one["capabilities"] == ["completion", "tools"]
    assert datetime.fromisoformat(one["modified_at"]).tzinfo is not None


async def test_tags_of_a_model_that_is_loading_have_no_figures():
    engine = FakeEngine()
    engine.state, engine.info = "loading", None
    async with client(engine) as http:
        (model,) = (await http.get("/api/tags")).json()["models"]
        assert (model["name"], model["size"]) == ("stories:latest", 0)
        assert model["details"]["quantization_level"] == "unknown"
        assert "capabilities" not in model
        assert (await http.get("/api/ps")).json() == {"models": []}


async def test_ps_tells_memory_and_the_share_on_gpus():
    async with client(loaded()) as http:
        (model,) = (await http.get("/api/ps")).json()["models"]
    assert model["size"] == 5 * GIB + 1100
    assert model["size_vram"] == 5 * GIB // 2 + 1000
    assert model["context_length"] == 512
    assert datetime.fromisoformat(model["expires_at"]).year == 9999


async def test_show_tells_template_defaults_and_capabilities():
    engine = loaded()
    async with client(app(engine, QWEN, default=["temperature=0.3"])) as http:
        found = (await http.post("/api/show", json={"model": "stories:latest"})).json()
        older = (await http.post("/api/show", json={"name": "stories", "verbose": True})).json()
    assert older.pop("warnings") == ["verbose has no effect"]
    assert older == found
    assert "<|im_start|>" in found["template"]
    assert ["temperature", "0.3"] in [line.split() for line in found["parameters"].splitlines()]
    assert found["capabilities"] == ["completion", "tools", "thinking"]
    assert found["model_info"] == {
        "general.architecture": "llama",
        "general.basename": "stories",
        "general.parameter_count": 7_248_023_552,
        "llama.context_length": 8192,
        "llama.embedding_length": 4096,
        "llama.block_count": 32,
    }
    assert "secret" not in str(found)


async def test_show_of_other_kinds_of_models():
    engine = able_engine()
    async with client(engine) as http:
        body = (await http.post("/api/show", json={"model": "stories"})).json()
        assert "insert" in body["capabilities"]
    engine = able_engine()
    assert engine.info is not None
    engine.info["generates"] = False
    async with client(engine) as http:
        body = (await http.post("/api/show", json={"model": "stories"})).json()
        assert {"completion", "tools", "thinking"}.isdisjoint(body["capabilities"])
        assert "embedding" in body["capabilities"]
        assert refusal(await http.post("/api/show", json={}), "/api/show")["message"] == "model: is required"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/create"),
        ("POST", "/api/copy"),
        ("POST", "/api/push"),
        ("POST", f"/api/blobs/sha256:{'0' * 64}"),
    ],
)
async def test_changes_of_models_are_refused_in_words(method, path):
    async with client() as http:
        response = await http.request(method, path, json={"model": "x"})
    assert "--model NAME=FILE" in refusal(response, path, 501)["message"]
