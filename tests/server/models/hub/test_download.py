"""Downloads by the real client library from a server that speaks the Hub's routes."""

from __future__ import annotations

import errno
import hashlib
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub.utils
import pytest
from huggingface_hub import constants, file_download

from server.models.errors import DownloadError, ModelNotFound
from server.models.hub import download
from server.models.hub.transfer import partial_file
from server.models.progress import Progress
from server.models.reference import NamedModel
from support.fakes.hub import COMMIT, FakeHub, Repo, use_hub


def pull(name: str, choice: str = "") -> tuple[Path, list[Progress]]:
    plan = download.prepare(NamedModel("hf", name, choice), lambda: None)
    reports = list(download.download(plan))
    return download.path_of(plan), reports


def served(hub: FakeHub, path: str) -> list[str | None]:
    """The ranges of the downloads of a file."""
    return [range for _, name, range in hub.requests if name.startswith("/cdn") and name.endswith(f"/{path}")]


def test_a_file_is_downloaded_with_progress_and_checked(hub: FakeHub) -> None:
    plan = download.prepare(NamedModel("hf", "me/Plain-GGUF"), lambda: None)
    data = hub.repos["me/Plain-GGUF"].files["plain-Q4_K_M.gguf"]
    assert str(plan) == "me/Plain-GGUF: plain-Q4_K_M.gguf, 1 MB, licence apache-2.0"
    assert plan.missing == len(data)
    reports = list(download.download(plan))
    digest = hashlib.sha256(data).hexdigest()
    assert reports[0] == Progress("downloading", "plain-Q4_K_M.gguf", 0, len(data), digest)
    assert Progress("downloading", "plain-Q4_K_M.gguf", len(data), len(data), digest) in reports
    assert reports[-1] == Progress("verifying", "plain-Q4_K_M.gguf", len(data), len(data), digest)
    assert download.path_of(plan).read_bytes() == data


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


def test_a_download_that_breaks_off_goes_on_where_it_ended(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 16)
    monkeypatch.setattr(file_download.time, "sleep", lambda seconds: None)
    hub.break_after = 300_000
    path, _ = pull("me/Plain-GGUF")
    assert path.read_bytes() == hub.repos["me/Plain-GGUF"].files["plain-Q4_K_M.gguf"]
    assert served(hub, "plain-Q4_K_M.gguf") == [None, f"bytes={300_000 // 65536 * 65536}-"]


def test_a_file_with_a_wrong_checksum_is_removed(hub: FakeHub) -> None:
    with pytest.raises(DownloadError, match=r"has sha256 [0-9a-f]{64}, expected .*removed, pull it again"):
        pull("me/Damaged-GGUF")
    left = [path.name for path in Path(constants.HF_HUB_CACHE).rglob("*") if path.is_file()]
    assert not [name for name in left if name.endswith(".gguf") or len(name) == 64]
    hub.repos["me/Damaged-GGUF"].damaged = frozenset()
    path, _ = pull("me/Damaged-GGUF")
    assert path.is_file()


def test_a_gated_repository_needs_a_token(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    message = rf"me/Gated-GGUF is gated: accept its terms at {hub.url}/me/Gated-GGUF, then .*HF_TOKEN"
    with pytest.raises(DownloadError, match=message):
        pull("me/Gated-GGUF")
    monkeypatch.setenv("HF_TOKEN", hub.token)
    path, _ = pull("me/Gated-GGUF")
    assert path.is_file()


@pytest.mark.parametrize(
    ("name", "choice", "message"),
    [
        (
            "me/Absent",
            "",
            r"has no repository me/Absent; check the spelling\. .*give a token",
        ),
        ("me/Weights", "", "me/Weights holds no GGUF file"),
        ("me/Plain-GGUF", "Q2_K", "me/Plain-GGUF has no Q2_K; it has Q4_K_M, Q8_0"),
    ],
)
def test_what_the_hub_has_not_is_named(hub: FakeHub, name: str, choice: str, message: str) -> None:
    with pytest.raises(ModelNotFound, match=message):
        pull(name, choice)
    assert not [path for _, path, _ in hub.requests if path.startswith("/cdn")]


def test_without_a_network_the_message_says_what_needs_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    use_hub(f"http://127.0.0.1:{port}", tmp_path, monkeypatch)
    with pytest.raises(DownloadError, match=rf"cannot reach http://127\.0\.0\.1:{port} .*`ggserve list`"):
        pull("me/Plain-GGUF")


def test_offline_mode_is_named(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError, match=r"me/Plain-GGUF is not on this .*HF_HUB_OFFLINE is set"):
        pull("me/Plain-GGUF")
    assert hub.requests == []


class _Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_too_little_space_is_said_before_the_download(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: _Usage(10**9, 0, 1_000_000))
    with pytest.raises(DownloadError, match=r"needs 2 MB of disk, and 1 MB are free in .*hub; make room"):
        pull("me/Plain-GGUF", "Q8_0")
    assert not [path for _, path, _ in hub.requests if path.startswith("/cdn")]


def test_a_disk_that_fills_up_meanwhile_leaves_nothing(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(file_download, "http_get", full)
    with pytest.raises(DownloadError, match=r"the disk of .* is full; make room"):
        pull("me/Plain-GGUF")
    assert not list(Path(constants.HF_HUB_CACHE).rglob("*.incomplete"))


def test_a_failing_hub_is_named_with_its_status(hub: FakeHub) -> None:
    hub.repos["me/Gone"] = Repo({"gone-Q4_K_M.gguf": b"GGUF"})
    plan = download.prepare(NamedModel("hf", "me/Gone"), lambda: None)
    hub.repos["me/Gone"] = Repo({})
    with pytest.raises(DownloadError, match="me/Gone has changed meanwhile; pull it again"):
        list(download.download(plan))


def test_a_download_that_was_ended_goes_on_in_the_next_one(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1024)
    named = NamedModel("hf", "me/Plain-GGUF", "Q8_0")
    plan = download.prepare(named, lambda: None)
    reports = download.download(plan)
    while next(reports).done == 0:
        pass
    reports.close()
    (partial,) = Path(constants.HF_HUB_CACHE).rglob("*.incomplete")
    done = partial.stat().st_size
    assert 0 < done < plan.missing
    hub.requests.clear()

    plan = download.prepare(named, lambda: None)
    assert plan.missing == plan.model.size - done
    reports = download.download(plan)
    assert [next(reports).done, next(reports).done] == [0, done + 1024]
    assert list(reports)[-1].done == plan.model.size
    assert served(hub, "plain-Q8_0.gguf") == [f"bytes={done}-"]
    assert download.path_of(plan).read_bytes() == hub.repos["me/Plain-GGUF"].files["plain-Q8_0.gguf"]
    assert not list(Path(constants.HF_HUB_CACHE).rglob("*.incomplete"))


def test_a_partial_file_that_is_damaged_is_noticed_and_downloaded_again(hub: FakeHub) -> None:
    plan = download.prepare(NamedModel("hf", "me/Plain-GGUF"), lambda: None)
    partial = partial_file(plan.repo, plan.model.files[0])
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"fuor")
    with pytest.raises(DownloadError, match="removed, pull it again"):
        list(download.download(plan))
    partial.write_bytes(b"x" * (plan.model.size + 1))
    path, _ = pull("me/Plain-GGUF")
    assert path.read_bytes() == hub.repos["me/Plain-GGUF"].files["plain-Q4_K_M.gguf"]


def test_a_header_is_read_by_range(hub: FakeHub) -> None:
    plan = download.prepare(NamedModel("hf", "me/Plain-GGUF"), lambda: None)
    assert download.header(plan, plan.model.files[0], 100) == b"four" + bytes(range(96))
    assert served(hub, "plain-Q4_K_M.gguf") == ["bytes=0-99"]
    assert COMMIT not in str(plan)


def test_a_partial_file_that_is_complete_needs_no_bytes(hub: FakeHub) -> None:
    plan = download.prepare(NamedModel("hf", "me/Plain-GGUF"), lambda: None)
    partial = partial_file(plan.repo, plan.model.files[0])
    partial.parent.mkdir(parents=True)
    partial.write_bytes(hub.repos["me/Plain-GGUF"].files["plain-Q4_K_M.gguf"])
    path, _ = pull("me/Plain-GGUF")
    assert served(hub, "plain-Q4_K_M.gguf") == []
    assert path.read_bytes() == hub.repos["me/Plain-GGUF"].files["plain-Q4_K_M.gguf"]


def test_a_file_that_another_process_completes_meanwhile_is_not_downloaded_twice(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = download.prepare(NamedModel("hf", "me/Plain-GGUF"), lambda: None)
    (file,) = plan.model.files

    @contextmanager
    def lock_of_another(path: Path) -> Iterator[None]:
        path.with_name(str(file.sha256)).write_bytes(hub.repos[plan.repo].files[file.path])
        yield

    monkeypatch.setattr(huggingface_hub.utils, "WeakFileLock", lock_of_another)
    assert list(download.download(plan))[-1].status == "verifying"
    assert served(hub, file.path) == []
