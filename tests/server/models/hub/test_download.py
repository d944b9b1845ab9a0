"""Downloads by the real client library from a server that speaks the Hub's routes."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
from huggingface_hub import constants

from server.models.errors import DownloadError, ModelNotFound
from server.models.hub import download
from server.models.progress import Progress
from server.models.reference import NamedModel
from support.fakes.hub import COMMIT, FakeHub
from support.hub_pulls import pull, served


def test_a_file_is_downloaded_with_progress_and_checked(hub: FakeHub) -> None:
    plan = download.prepare(NamedModel("hf", "me/Plain-GGUF"), lambda: None)
    data = hub.repos["me/Plain-GGUF"].files["plain-Q4_K_M.gguf"]
    assert str(plan) == "me/Plain-GGUF: plain-Q4_K_M.gguf, 1 MB, licence apache-2.0"
    assert plan.missing == len(data)
    reports: list[Progress] = []
    assert download.download(plan, reports.append).read_bytes() == data
    digest = hashlib.sha256(data).hexdigest()
    assert reports[0] == Progress("downloading", "plain-Q4_K_M.gguf", 0, len(data), digest)
    assert Progress("downloading", "plain-Q4_K_M.gguf", len(data), len(data), digest) in reports
    assert reports[-1] == Progress("verifying", "plain-Q4_K_M.gguf", len(data), len(data), digest)


def test_a_second_pull_downloads_nothing(hub: FakeHub) -> None:
    first, _ = pull("me/Plain-GGUF", "Q8_0")
    hub.requests.clear()
    second, reports = pull("me/Plain-GGUF", "Q8_0")
    assert (second, served(hub, "plain-Q8_0.gguf")) == (first, [])
    assert reports[-1].status == "verifying"


def test_all_parts_of_a_split_model_are_downloaded(hub: FakeHub) -> None:
    path, reports = pull("me/Parts-GGUF")
    assert path.name == "parts-Q5_K_M-00001-of-00003.gguf"
    parts = sorted(path.parent.iterdir())
    assert [part.read_bytes()[:1] for part in parts] == [b"1", b"2", b"3"]
    assert {report.name for report in reports} == {part.name for part in parts}


def test_a_file_with_a_wrong_checksum_is_removed(hub: FakeHub) -> None:
    with pytest.raises(DownloadError, match=r"has sha256 [0-9a-f]{64}, expected .*removed, pull it again"):
        pull("me/Damaged-GGUF")
    left = [path.name for path in Path(constants.HF_HUB_CACHE).rglob("*") if path.is_file()]
    assert not [name for name in left if name.endswith(".gguf") or len(name) == 64]
    hub.repos["me/Damaged-GGUF"].damaged = frozenset()
    path, _ = pull("me/Damaged-GGUF")
    assert path.is_file()


@pytest.mark.parametrize(
    ("name", "choice", "message"),
    [
        (
            "me/Absent",
            "",
            r"has no repository me/Absent; check the spelling\. .*set a token",
        ),
        ("me/Weights", "", "me/Weights holds no GGUF file"),
        ("me/Plain-GGUF", "Q2_K", "me/Plain-GGUF has no Q2_K; it has Q4_K_M, Q8_0"),
    ],
)
def test_files_missing_on_the_hub_are_named(hub: FakeHub, name: str, choice: str, message: str) -> None:
    with pytest.raises(ModelNotFound, match=message):
        pull(name, choice)
    assert not [path for _, path, _ in hub.requests if path.startswith("/cdn")]


class _Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_too_little_space_is_reported_before_the_download(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: _Usage(10**9, 0, 1_000_000))
    with pytest.raises(
        DownloadError, match=r"needs 2 MB of disk space, but only 1 MB are free in .*hub; free some space"
    ):
        pull("me/Plain-GGUF", "Q8_0")
    assert not [path for _, path, _ in hub.requests if path.startswith("/cdn")]


def test_header_is_read_with_a_range_request(hub: FakeHub) -> None:
    plan = download.prepare(NamedModel("hf", "me/Plain-GGUF"), lambda: None)
    assert download.header(plan, plan.model.files[0], 100) == b"four" + bytes(range(96))
    assert served(hub, "plain-Q4_K_M.gguf") == ["bytes=0-99"]
    assert COMMIT not in str(plan)


def test_file_a_user_linked_into_the_cache_is_kept_despite_a_wrong_checksum(
    hub: FakeHub, tmp_path: Path
) -> None:
    path, _ = pull("me/Plain-GGUF")
    own = tmp_path / "own.gguf"
    own.write_bytes(b"GGUF")
    path.unlink()
    path.symlink_to(own)
    with pytest.raises(DownloadError, match="removed, pull it again"):
        pull("me/Plain-GGUF")
    assert own.read_bytes() == b"GGUF"
    assert not path.is_symlink()
