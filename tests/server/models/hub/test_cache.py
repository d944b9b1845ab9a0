"""What of the Hub is on this machine: listed and removed, whoever downloaded it."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import constants

from server.models.catalog import pull
from server.models.hub import cache
from support.fakes.hub import FakeHub


def names() -> list[str]:
    return [model.name for model in cache.list_models()]


def blobs() -> int:
    return sum(len(path.name) == 64 for path in Path(constants.HF_HUB_CACHE).rglob("blobs/*"))


def test_missing_cache_lists_nothing(hub: FakeHub) -> None:
    assert names() == []


def test_models_are_listed_by_repository_and_quantization(hub: FakeHub) -> None:
    pull("me/Plain-GGUF")
    pull("me/Plain-GGUF:Q8_0")
    pull("me/Parts-GGUF")
    assert names() == ["hf:me/Parts-GGUF:Q5_K_M", "hf:me/Plain-GGUF:Q4_K_M", "hf:me/Plain-GGUF:Q8_0"]
    parts, plain, _ = cache.list_models()
    assert parts.size == sum(map(len, hub.repos["me/Parts-GGUF"].files.values()))
    assert plain.path.read_bytes() == hub.repos["me/Plain-GGUF"].files["plain-Q4_K_M.gguf"]
    assert plain.digest == plain.path.resolve().name


def test_a_model_without_all_its_parts_is_not_listed(hub: FakeHub) -> None:
    pull("me/Parts-GGUF")
    (model,) = cache.list_models()
    model.path.unlink()
    assert names() == []


def test_removing_a_model_keeps_the_others(hub: FakeHub) -> None:
    pull("me/Plain-GGUF")
    pull("me/Plain-GGUF:Q8_0")
    size = len(hub.repos["me/Plain-GGUF"].files["plain-Q8_0.gguf"])
    assert cache.delete("hf:me/Plain-GGUF:Q8_0") == size
    assert (names(), blobs()) == (["hf:me/Plain-GGUF:Q4_K_M"], 1)


def test_removing_the_last_model_removes_its_repository(hub: FakeHub) -> None:
    pull("me/Parts-GGUF")
    cache.delete("hf:me/Parts-GGUF:Q5_K_M")
    assert (names(), blobs()) == ([], 0)
    assert not (Path(constants.HF_HUB_CACHE) / "models--me--Parts-GGUF").exists()


def test_file_a_user_linked_into_the_cache_is_not_removed(hub: FakeHub, tmp_path: Path) -> None:
    pull("me/Plain-GGUF")
    (model,) = cache.list_models()
    own = tmp_path / "own.gguf"
    own.write_bytes(b"GGUF")
    model.path.unlink()
    model.path.symlink_to(own)
    assert cache.delete("hf:me/Plain-GGUF:Q4_K_M") == 0
    assert names() == []
    assert own.read_bytes() == b"GGUF"


def test_files_of_a_model_include_those_of_every_snapshot(hub: FakeHub) -> None:
    pull("me/Plain-GGUF")
    (model,) = cache.list_models()
    older = model.path.parent.with_name("f" * 40) / model.path.name
    older.parent.mkdir()
    older.write_bytes(b"older")
    assert set(cache.files(model.name)) == {model.path, older}
    cache.delete(model.name)
    assert not older.exists()
