"""Downloads that break off go on, also in another process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub.utils
import pytest
from huggingface_hub import constants, file_download

from server.models.errors import DownloadError
from server.models.hub import download
from server.models.hub.transfer import partial_file
from server.models.progress import Ended, Progress, ignore
from server.models.reference import NamedModel
from support.fakes.hub import FakeHub
from support.hub_pulls import pull, served


def test_interrupted_download_continues_where_it_stopped(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 16)
    monkeypatch.setattr(file_download.time, "sleep", lambda seconds: None)
    hub.break_after = 300_000
    path, _ = pull("me/Plain-GGUF")
    assert path.read_bytes() == hub.repos["me/Plain-GGUF"].files["plain-Q4_K_M.gguf"]
    assert served(hub, "plain-Q4_K_M.gguf") == [None, f"bytes={300_000 // 65536 * 65536}-"]


def test_cancelled_download_continues_in_the_next_one(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1024)
    named = NamedModel("hf", "me/Plain-GGUF", "Q8_0")
    plan = download.prepare(named, lambda: None)

    def end(progress: Progress) -> None:
        if progress.done > 4096:
            raise Ended

    with pytest.raises(Ended):
        download.download(plan, end)
    (partial,) = Path(constants.HF_HUB_CACHE).rglob("*.incomplete")
    done = partial.stat().st_size
    assert 0 < done < plan.missing
    hub.requests.clear()

    plan = download.prepare(named, lambda: None)
    assert plan.missing == plan.model.size - done
    reports: list[Progress] = []
    path = download.download(plan, reports.append)
    assert [report.done for report in reports[:2]] == [0, done + 1024]
    assert reports[-1].done == plan.model.size
    assert served(hub, "plain-Q8_0.gguf") == [f"bytes={done}-"]
    assert path.read_bytes() == hub.repos["me/Plain-GGUF"].files["plain-Q8_0.gguf"]
    assert not list(Path(constants.HF_HUB_CACHE).rglob("*.incomplete"))


def test_damaged_partial_file_is_downloaded_again(hub: FakeHub) -> None:
    plan = download.prepare(NamedModel("hf", "me/Plain-GGUF"), lambda: None)
    partial = partial_file(plan.repo, plan.model.files[0])
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"fuor")
    with pytest.raises(DownloadError, match="removed, pull it again"):
        download.download(plan, ignore)
    partial.write_bytes(b"x" * (plan.model.size + 1))
    path, _ = pull("me/Plain-GGUF")
    assert path.read_bytes() == hub.repos["me/Plain-GGUF"].files["plain-Q4_K_M.gguf"]


def test_complete_partial_file_is_not_downloaded_again(hub: FakeHub) -> None:
    plan = download.prepare(NamedModel("hf", "me/Plain-GGUF"), lambda: None)
    partial = partial_file(plan.repo, plan.model.files[0])
    partial.parent.mkdir(parents=True)
    partial.write_bytes(hub.repos["me/Plain-GGUF"].files["plain-Q4_K_M.gguf"])
    path, _ = pull("me/Plain-GGUF")
    assert served(hub, "plain-Q4_K_M.gguf") == []
    assert path.read_bytes() == hub.repos["me/Plain-GGUF"].files["plain-Q4_K_M.gguf"]


def test_file_completed_by_another_process_is_not_downloaded_twice(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = download.prepare(NamedModel("hf", "me/Plain-GGUF"), lambda: None)
    (file,) = plan.model.files

    @contextmanager
    def lock_of_another(path: Path) -> Iterator[None]:
        path.with_name(str(file.sha256)).write_bytes(hub.repos[plan.repo].files[file.path])
        yield

    monkeypatch.setattr(huggingface_hub.utils, "WeakFileLock", lock_of_another)
    reports: list[Progress] = []
    download.download(plan, reports.append)
    assert reports[-1].status == "verifying"
    assert served(hub, file.path) == []
