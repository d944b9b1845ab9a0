"""What clients are told of models, and what they can change."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytest_asyncio

from server.api.ollama.models import OLLAMA_VERSION
from server.models import catalog
from server.models.errors import DownloadError
from server.models.progress import Progress
from server.models.reference import DEFAULT
from server.models.resolver import Pulling
from server.models.wheel import SMOLLM2
from support.api.chat import QWEN, app
from support.api.http import Live, client
from support.api.routes import able_engine, refusal
from support.fakes.engine import STORIES, FakeEngine, make_app, make_folder_app
from support.fakes.hub import Repo, fake_hub, use_hub
from support.waiting import until

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
async def test_head_and_get_of_the_root_say_the_server_is_running(method, path):
    async with client() as http:
        assert (await http.request(method, path)).status_code == 200


async def test_version_is_that_of_ollamas_api():
    async with client() as http:
        version = (await http.get("/api/version")).json()["version"]
    assert version == OLLAMA_VERSION
    # VS Code, Codex (for Responses), Messages: the least versions that clients ask for
    assert [int(part) for part in version.split(".")] >= max([0, 6, 4], [0, 13, 4], [0, 14, 0])


async def test_tags_list_served_models_with_their_details():
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


async def test_tags_of_a_loading_model_have_no_figures():
    engine = FakeEngine()
    engine.state, engine.info = "loading", None
    async with client(engine) as http:
        (model,) = (await http.get("/api/tags")).json()["models"]
        assert (model["name"], model["size"]) == ("stories:latest", 0)
        assert model["details"]["quantization_level"] == "unknown"
        assert "capabilities" not in model
        assert (await http.get("/api/ps")).json() == {"models": []}


async def test_ps_shows_memory_and_the_share_on_gpus():
    async with client(loaded()) as http:
        (model,) = (await http.get("/api/ps")).json()["models"]
    assert model["size"] == 5 * GIB + 1100
    assert model["size_vram"] == 5 * GIB // 2 + 1000
    assert model["context_length"] == 512
    assert datetime.fromisoformat(model["expires_at"]).year == 9999


async def test_show_has_template_defaults_and_capabilities():
    engine = loaded()
    async with client(app(engine, QWEN, default=["temperature=0.3"])) as http:
        data = (await http.post("/api/show", json={"model": "stories:latest"})).json()
        older = (await http.post("/api/show", json={"name": "stories", "verbose": True})).json()
    assert older.pop("warnings") == ["verbose has no effect"]
    assert older == data
    assert "<|im_start|>" in data["template"]
    assert ["temperature", "0.3"] in [line.split() for line in data["parameters"].splitlines()]
    assert data["capabilities"] == ["completion", "tools", "thinking"]
    assert data["model_info"] == {
        "general.architecture": "llama",
        "general.basename": "stories",
        "general.parameter_count": 7_248_023_552,
        "llama.context_length": 8192,
        "llama.embedding_length": 4096,
        "llama.block_count": 32,
    }
    assert "secret" not in str(data)


async def test_show_has_the_capabilities_of_the_model():
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
async def test_changes_of_models_are_refused_with_advice(method, path):
    async with client() as http:
        response = await http.request(method, path, json={"model": "x"})
    assert "--model NAME=FILE" in refusal(response, path, 501)["message"]


# --- /api/pull and /api/delete, against a small Hub

PULL, DELETE = "/api/pull", "/api/delete"
DATA = b"four" + bytes(range(256)) * 4096
REPOS = {
    "me/Tales-GGUF": Repo({"tales-Q4_K_M.gguf": DATA}),
    "me/Damaged-GGUF": Repo({"damaged-Q4_K_M.gguf": DATA}, damaged=frozenset({"damaged-Q4_K_M.gguf"})),
    "me/Gated-GGUF": Repo({"gated-Q4_K_M.gguf": DATA}, gated=True),
}
NAME = "hf:me/Tales-GGUF:Q4_K_M"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with fake_hub(REPOS) as server:
        use_hub(server.url, tmp_path / "hub", monkeypatch)
        monkeypatch.setattr("server.models.stores.ollama.list_models", lambda: iter(()))
        monkeypatch.setattr("server.models.stores.lmstudio.list_models", lambda: iter(()))
        yield server


def permitting(engine: FakeEngine | None = None):
    return make_app(engine, allow_pull=True)


async def delete(http, **body):
    return await http.request("DELETE", DELETE, json=body)


@pytest.mark.parametrize(("method", "path"), [("POST", PULL), ("DELETE", DELETE)])
async def test_pull_and_delete_without_permission_name_the_option(method, path, hub):
    async with client() as http:
        response = await http.request(method, path, json={"model": "me/Tales-GGUF"})
    assert "--allow-pull" in refusal(response, path, 403)["message"]
    assert hub.requests == []


@pytest.mark.parametrize("name", ["me/Tales-GGUF", "hf.co/me/Tales-GGUF:Q4_K_M", "me/Tales-GGUF:latest"])
async def test_pull_reports_progress_and_adds_the_model(name, hub):
    async with client(permitting()) as http:
        response = await http.post(PULL, json={"model": name})
        assert response.headers["content-type"] == "application/x-ndjson"
        first, *steps, last = [json.loads(line) for line in response.text.splitlines()]
        assert (await http.get("/api/tags")).json()["models"][0]["name"] == "stories:latest"
    assert first == {"status": "pulling manifest"}
    digest = hashlib.sha256(DATA).hexdigest()
    pulling = [step for step in steps if "total" in step]
    assert {step["digest"] for step in pulling} == {f"sha256:{digest}"}
    assert {step["status"] for step in pulling} == {f"pulling {digest[:12]}"}
    assert (pulling[0]["completed"], pulling[-1]["completed"]) == (0, len(DATA))
    assert steps[-1] == {"status": "verifying sha256 digest"}
    assert last["status"] == "success"
    assert "will be served after a restart with --model" in last["warnings"][0]
    assert catalog.find(NAME) is not None


@pytest.mark.parametrize("stream", [True, False])
async def test_pull_of_the_present_default_model_succeeds_at_once(stream, tmp_path, monkeypatch):
    monkeypatch.setenv("GGSERVE_CACHE", str(tmp_path))
    SMOLLM2.target.mkdir(parents=True)
    async with client(permitting()) as http:
        response = await http.post(PULL, json={"model": DEFAULT, "stream": stream})
    statuses = [json.loads(line)["status"] for line in response.text.splitlines()]
    assert statuses == (["pulling manifest"] if stream else []) + ["success"]


async def test_pull_without_a_stream_answers_at_its_end(hub):
    async with client(permitting()) as http:
        answer = (
            await http.post(PULL, json={"name": "me/Tales-GGUF", "stream": False, "insecure": True})
        ).json()
    assert answer["status"] == "success"
    assert "insecure has no effect" in answer["warnings"]
    assert catalog.find(NAME) is not None


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("me/Nothing", 404, "has no repository me/Nothing"),
        ("nothing", 404, "is not a short name"),
        ("hf:../../etc/passwd", 400, "must be hf:OWNER/REPO"),
        ("/etc/passwd", 400, "must be hf:OWNER/REPO"),
        ("ollama:x", 404, "cannot be pulled"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_pull_that_cannot_begin_has_a_status(name, status, words, stream, hub, tmp_path):
    async with client(permitting()) as http:
        response = await http.post(PULL, json={"model": name, "stream": stream})
        message = refusal(response, PULL, status)["message"]
        assert words in message
        assert str(tmp_path) not in message
        assert refusal(await http.post(PULL, json={}), PULL)["message"] == "model: is required"


async def test_pull_of_a_gated_repository_says_what_to_do(hub):
    async with client(permitting()) as http:
        whole = await http.post(PULL, json={"model": "me/Gated-GGUF", "stream": False})
        assert "is gated: accept its terms" in refusal(whole, PULL, 500)["message"]
        stream = await http.post(PULL, json={"model": "me/Gated-GGUF"})  # its list of files is public
    assert "is gated: accept its terms" in json.loads(stream.text.splitlines()[-1])["error"]


async def test_pull_of_a_damaged_file_ends_with_an_error_and_leaves_nothing(hub, tmp_path):
    async with client(permitting()) as http:
        response = await http.post(PULL, json={"model": "me/Damaged-GGUF"})
    last = json.loads(response.text.splitlines()[-1])
    assert "has sha256" in last["error"]
    assert str(tmp_path) not in response.text
    assert catalog.find("hf:me/Damaged-GGUF:Q4_K_M") is None


async def test_path_in_a_pull_error_is_replaced(monkeypatch):
    def pull(name: str, pulling: Pulling) -> None:
        raise DownloadError("me/x needs 5 GB of disk, and 1 GB are free in /root/.cache/hub; make room")

    monkeypatch.setattr(catalog, "pull", pull)
    async with client(permitting()) as http:
        response = await http.post(PULL, json={"model": "me/x"})
    message = refusal(response, PULL, 500)["message"]
    assert message == "me/x needs 5 GB of disk, and 1 GB are free in the cache; make room"


async def test_pulls_run_one_at_a_time_and_end_with_their_client(monkeypatch):
    ended, goes_on = threading.Event(), threading.Event()

    def pull(name: str, pulling: Pulling) -> None:
        try:
            pulling.report(Progress("downloading", "x", 0, 10))
            while not goes_on.wait(0.01):
                pulling.report(Progress("downloading", "x", 1, 10))
        finally:
            ended.set()

    monkeypatch.setattr(catalog, "pull", pull)
    app = permitting()
    async with client(app) as http:
        live = Live(app, PULL, {"model": "me/one"})
        await live.until("completed")
        busy = await http.post(PULL, json={"model": "me/two"})
        assert "me/one is being pulled" in refusal(busy, PULL, 429)["message"]
        live.leave()
        await live.finish()
        await until(ended.is_set)
        goes_on.set()
        again = await http.post(PULL, json={"model": "me/two", "stream": False})
        assert again.status_code == 200


async def test_delete_removes_a_pulled_model(hub):
    async with client(permitting()) as http:
        await http.post(PULL, json={"model": "me/Tales-GGUF", "stream": False})
        assert (await delete(http, model="hf.co/me/Tales-GGUF")).json() == {"status": "success"}
        assert catalog.find(NAME) is None
        for name in ("me/Tales-GGUF", "nothing", "../x", "/etc/passwd"):
            response = await delete(http, model=name)
            assert (response.status_code, response.json()) == (404, {"error": f"model '{name}' not found"})
        refusal(await delete(http), DELETE)


@pytest_asyncio.fixture
async def pulled(hub):
    """A server of `engine`, which pulled the model at `path`."""
    engine = FakeEngine()
    assert engine.info is not None
    async with client(permitting(engine)) as http:
        await http.post(PULL, json={"model": "me/Tales-GGUF", "stream": False})
        model = catalog.find(NAME)
        assert model is not None
        yield SimpleNamespace(engine=engine, http=http, path=model.path)


async def test_delete_of_a_model_served_from_an_older_snapshot_is_refused(pulled):
    older = pulled.path.parent.with_name("f" * 40) / pulled.path.name
    older.parent.mkdir()
    older.write_bytes(b"older")
    pulled.engine.info["path"] = str(older)
    assert "is served" in refusal(await delete(pulled.http, model=NAME), DELETE, 409)["message"]
    assert older.exists()


async def test_delete_of_a_served_or_foreign_model_is_refused(pulled):
    engine, http = pulled.engine, pulled.http
    engine.info["path"] = os.path.realpath(pulled.path)  # the cache links to it
    assert "is served" in refusal(await delete(http, model=NAME), DELETE, 409)["message"]
    engine.state = "loading"
    assert "is loading" in refusal(await delete(http, model=NAME), DELETE, 503)["message"]
    engine.state = "ready"
    assert Path(pulled.path).is_file()
    bundled = await delete(http, model="stories")
    assert "is part of ggserve" in refusal(bundled, DELETE, 403)["message"]


async def test_unloaded_models_are_described_from_their_files():
    app = make_folder_app(FakeEngine(name="stories"), FakeEngine(name="other"))
    served = app.state.ggserve.registry.models
    served["stories"].path = STORIES
    async with client(app) as http:
        described, absent = (await http.get("/api/tags")).json()["models"]
        assert described["details"]["parameter_size"].endswith("M")
        assert described["capabilities"] == ["completion"]
        assert "capabilities" not in absent
        shown = (await http.post("/api/show", json={"model": "stories"})).json()
        assert shown["model_info"]["llama.context_length"] == 512
        assert shown["capabilities"] == ["completion"]
        assert (await http.get("/api/ps")).json() == {"models": []}
        assert [model.state for model in served.values()] == ["unloaded", "unloaded"]
        await http.post("/api/generate", json={"model": "stories", "prompt": "Once", "stream": False})
        (loaded,) = (await http.get("/api/ps")).json()["models"]
        assert loaded["name"] == "stories:latest"


async def test_describing_a_model_being_unloaded_does_not_load_it():
    app = make_folder_app(FakeEngine(name="stories"))
    model = app.state.ggserve.registry.models["stories"]
    model.path = STORIES
    async with client(app) as http:
        lease = await app.state.ggserve.registry.wait(model)
        app.state.ggserve.registry.begin_unload(model)
        await until(lambda: model.state == "draining")
        (listed,) = (await http.get("/api/tags")).json()["models"]
        shown = (await http.post("/api/show", json={"model": "stories"})).json()
        assert listed["capabilities"] == shown["capabilities"] == ["completion"]
        assert model.load is None
        app.state.ggserve.registry.release(lease)


async def test_model_with_a_failed_engine_is_listed_but_not_shown():
    engine = loaded()
    async with client(engine) as http:
        engine.state = "failed"
        (listed,) = (await http.get("/api/tags")).json()["models"]
        assert (listed["name"], listed["size"]) == ("stories:latest", 0)
        refusal(await http.post("/api/show", json={"model": "stories"}), "/api/show", 503)


async def test_embeddings_report_the_load_time_of_their_model():
    app = make_folder_app(FakeEngine(name="stories"))
    async with client(app) as http:
        first, second = [
            (await http.post("/api/embed", json={"model": "stories", "input": "a"})).json() for _ in range(2)
        ]
    assert first["load_duration"] > second["load_duration"] == 0
