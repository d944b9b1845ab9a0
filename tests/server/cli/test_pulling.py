"""`pull`, `list`, `rm` and --model hf:… as processes, with a Hub that HF_ENDPOINT names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.cli import pulling
from server.config.settings import Settings
from server.models.hub import download
from server.models.reference import NamedModel
from support.fakes.hub import FakeHub, Repo, fake_hub, use_hub
from support.server_process import ROOT, ServerProcess, ggserve

STORIES = (ROOT / "models" / "stories.gguf").read_bytes()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    repos = {
        "me/Stories-GGUF": Repo({"stories-Q8_0.gguf": STORIES}),
        "me/Text-GGUF": Repo({"text-Q4_K_M.gguf": b"no model at all" * 1000}),
    }
    with fake_hub(repos) as server:
        use_hub(server.url, tmp_path / "hub", monkeypatch)
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
        yield server


@pytest.mark.e2e
@pytest.mark.usefixtures("hub")
def test_a_model_is_pulled_listed_served_and_removed(tmp_path: Path) -> None:
    pulled = ggserve("pull", "me/Stories-GGUF")
    assert pulled.returncode == 0, pulled.stderr
    assert Path(pulled.stdout.strip()).read_bytes() == STORIES
    assert "pulling me/Stories-GGUF: stories-Q8_0.gguf, 3 MB, licence apache-2.0" in pulled.stderr
    assert "of memory, fits with all layers on " in pulled.stderr
    assert "HTTP Request" not in pulled.stderr

    assert "hf:me/Stories-GGUF:Q8_0" in ggserve("list").stdout
    (row,) = [row for row in json.loads(ggserve("list", "--json").stdout) if row["source"] == "hub"]
    assert (row["name"], row["size"]) == ("hf:me/Stories-GGUF:Q8_0", len(STORIES))

    with ServerProcess("-m", "hf:me/Stories-GGUF", "--threads", "1") as server:
        assert list(server.get("/health")["models"]) == ["stories"]
        assert server.end() == 0

    removed = ggserve("rm", "me/Stories-GGUF")
    assert removed.stdout == "removed hf:me/Stories-GGUF:Q8_0: 3 MB freed\n"
    again = ggserve("rm", "me/Stories-GGUF")
    assert (again.returncode, "on this machine; see `ggserve list`" in again.stderr) == (1, True)


@pytest.mark.e2e
def test_models_of_ollama_and_lm_studio_are_listed_and_run_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = hashlib.sha256(STORIES).hexdigest()
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}", "size": 1}
    files = {
        f"ollama/blobs/sha256-{digest}": STORIES,
        "ollama/manifests/registry.ollama.ai/library/tiny/latest": json.dumps({"layers": [layer]}).encode(),
        ".lmstudio/models/me/Tiny-GGUF/tiny-Q8_0.gguf": STORIES,
    }
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    monkeypatch.setenv("HOME", str(tmp_path))
    names = ["ollama:tiny:latest", "lmstudio:me/Tiny-GGUF/tiny-Q8_0.gguf"]
    rows = json.loads(ggserve("list", "--json").stdout)
    assert [row["name"] for row in rows if row["source"] in ("ollama", "lmstudio")] == names
    for name in (*names, "ollama:tiny"):
        done = ggserve(
            "infer", "-m", name, "-p", "Once upon", "-n", "4", "--temperature", "0", "--threads", "1"
        )
        assert (done.returncode, done.stdout) == (0, " a time, there\n")


@pytest.mark.e2e
def test_serve_pulls_its_model(hub: FakeHub) -> None:
    with ServerProcess("-hf", "me/Stories-GGUF:Q8_0", "--threads", "1", bundled=False) as server:
        assert list(server.get("/health")["models"]) == ["stories"]
        assert any("fits with all layers on" in line for line in server.lines)
        assert server.end() == 0
    assert hub.requests


@pytest.mark.e2e
@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["pull", "me/Absent"], 1, "has no repository me/Absent"),
        (["pull", "absent"], 1, "absent is not a short name"),
        (["pull", "a/b/c"], 2, "must be hf:OWNER/REPO"),
        (
            ["infer", "-p", "x", "-m", "hf:me/Stories-GGUF:Q2_K"],
            1,
            "me/Stories-GGUF has no Q2_K; it has Q8_0",
        ),
        (["infer", "-p", "x", "-m", "hf:me"], 2, "model: 'hf:me' must be hf:OWNER/REPO"),
    ],
)
def test_mistake_is_reported_in_one_line(arguments: list[str], status: int, message: str) -> None:
    done = ggserve(*arguments)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (status, "")
    assert message in line


def prepared(name: str) -> download.Download:
    return download.prepare(NamedModel("hf", name), lambda: None)


@pytest.mark.usefixtures("hub")
def test_plan_is_made_from_the_header_alone() -> None:
    line = pulling.fit(prepared("me/Stories-GGUF"), Settings(use_gpu=False, context_size=64))
    assert line.startswith("needs ")
    assert line.endswith(" MB of memory, fits with all layers on CPU")


@pytest.mark.e2e
@pytest.mark.usefixtures("hub")
def test_pull_takes_every_option_that_changes_its_plan(tmp_path: Path) -> None:
    config = tmp_path / "server.yml"
    config.write_text("kv_type: q8_0\ndevice: [CPU]\ncpu_moe: true\n", encoding="utf-8")
    done = ggserve("pull", "me/Stories-GGUF", "--config", str(config), "--override-tensor", "ffn=Nowhere")
    assert done.returncode == 0, done.stderr
    assert "override_tensor: Nowhere is not one of the devices" in done.stderr


@pytest.mark.usefixtures("hub")
def test_a_file_that_is_not_a_model_has_no_plan() -> None:
    line = pulling.fit(prepared("me/Text-GGUF"), Settings())
    assert line.startswith("cannot tell whether it will fit: text-Q4_K_M.gguf: ")


@pytest.mark.parametrize(
    ("layers", "where"),
    [
        (["CUDA0"] * 3, "all layers on CUDA0"),
        (["CPU", "CUDA0", "CUDA0"], "1 of 3 layers on CPU, 2 of 3 layers on CUDA0"),
    ],
)
def test_plan_shows_where_layers_go(layers: list[str], where: str) -> None:
    devices = {name: {"needed": 2_600_000_000} for name in set(layers)}
    gb = f"{2.6 * len(devices):.2f} GB"
    line = pulling.summary({"fits": True, "layers": layers, "devices": devices})
    assert line == f"needs {gb} of memory, fits with {where}"
    assert pulling.summary({"fits": False, "problem": "too large"}) == "does not fit: too large"


def test_free_memory_of_the_devices_is_found() -> None:
    assert (pulling.free_memory() or 0) > 10**8
