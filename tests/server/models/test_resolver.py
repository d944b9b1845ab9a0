"""From a name to a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import constants

from server.models import resolver, wheel
from server.models.bundled import bundled_model
from server.models.errors import DownloadError, ModelNotFound
from server.models.reference import BUNDLED, DEFAULT
from server.models.resolver import Pulling
from support.fakes.hub import FakeHub


def test_path_stays_unchanged(tmp_path: Path) -> None:
    assert resolver.resolve(str(tmp_path / "absent.gguf")) == tmp_path / "absent.gguf"


def test_file_named_like_a_short_name_takes_precedence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(DEFAULT).touch()
    assert resolver.resolve(DEFAULT) == Path(DEFAULT)


def test_bundled_model_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolver.resolve(BUNDLED) == bundled_model()


def test_default_model_is_the_file_of_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GGSERVE_CACHE", str(tmp_path))
    wheel.SMOLLM2.target.mkdir(parents=True)
    assert resolver.resolve(DEFAULT) == wheel.SMOLLM2.target / "SmolLM2-135M-Instruct.Q4_1.gguf"


def test_a_model_of_the_hub_is_pulled_once(hub: FakeHub) -> None:
    plans: list[str] = []
    pulling = Pulling(announce=lambda plan: plans.append(str(plan)))
    path = resolver.resolve("hf:me/Plain-GGUF:Q8_0", pulling)
    assert path.read_bytes() == hub.repos["me/Plain-GGUF"].files["plain-Q8_0.gguf"]
    hub.requests.clear()
    assert resolver.resolve("hf:me/Plain-GGUF:Q8_0", pulling).samefile(path)
    assert (hub.requests, len(plans)) == ([], 1)


def test_present_model_needs_no_network(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    path = resolver.resolve("hf:me/Parts-GGUF")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert resolver.resolve("hf:me/Parts-GGUF").samefile(path)
    path.unlink()  # one of its parts
    with pytest.raises(DownloadError, match="HF_HUB_OFFLINE"):
        resolver.resolve("hf:me/Parts-GGUF")


@pytest.mark.parametrize("name", ["absent", "absent:1b"])
def test_unknown_name_is_refused_with_the_short_names(name: str) -> None:
    with pytest.raises(
        ModelNotFound, match=f"{name} is neither a file nor a short name; .*{DEFAULT}, .*qwen"
    ):
        resolver.resolve(name)


def test_models_of_other_programs_are_used_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    path = tmp_path / ".lmstudio" / "models" / "me" / "x" / "x.gguf"
    path.parent.mkdir(parents=True)
    path.touch()
    assert resolver.resolve("lmstudio:me/x") == path
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path))
    with pytest.raises(ModelNotFound, match="`ollama pull x`"):
        resolver.resolve("ollama:x")
