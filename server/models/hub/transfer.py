"""Transfers the bytes of one file from the Hub, resuming where an earlier process stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from server.models.hub import problems
from server.models.hub.choice import RepoFile
from server.models.progress import Progress, Report


class _Transfer:
    """One file in transfer. An exception raised by `report` ends it."""

    def __init__(self, repo: str, file: RepoFile, revision: str, report: Report) -> None:
        self._repo, self._file, self._revision, self._report = repo, file, revision, report
        self._done = 0

    def run(self) -> Path:
        """Transfer the file and return its path in the cache."""
        from huggingface_hub import constants, hf_hub_download

        bar: Any = self._bar  # a function does as well as a class
        with problems.explained(self._repo):
            # The library has no resumption across processes. It finds the file by its checksum and links it.
            if self._file.sha256 and self._file.size <= constants.MAX_HTTP_DOWNLOAD_SIZE:
                self._resume(partial_file(self._repo, self._file), bar)
            path = hf_hub_download(
                self._repo,
                self._file.path,
                revision=self._revision,
                library_name="ggserve",
                tqdm_class=bar,
            )
        return Path(path)

    def _resume(self, partial: Path, bar: Any) -> None:
        """Complete the partial file under the library's name for it, unless that file exists."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import WeakFileLock, build_hf_headers  # type: ignore[attr-defined]

        blob = partial.with_name(str(self._file.sha256))
        if blob.exists():
            return
        partial.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(partial.with_suffix(".lock")):
            if blob.exists():  # the process that held the lock has made it
                return
            try:
                with partial.open("ab") as opened:
                    if opened.tell() > self._file.size:
                        opened.seek(opened.truncate(0))
                    http_get(
                        hf_hub_url(self._repo, self._file.path, revision=self._revision),
                        opened,
                        resume_size=opened.tell(),
                        headers=build_hf_headers(library_name="ggserve"),
                        expected_size=self._file.size,
                        tqdm_class=bar,
                    )
                partial.replace(blob)
            finally:
                if partial.is_file() and not partial.stat().st_size:
                    partial.unlink()
        partial.with_suffix(".lock").unlink(missing_ok=True)

    def _bar(self, *, initial: int = 0, **options: Any) -> _Bar:
        self._done = initial
        return _Bar(self._advance)

    def _advance(self, n: int) -> None:
        self._done += n
        name = self._file.path.rpartition("/")[2]
        self._report(Progress("downloading", name, self._done, self._file.size, self._file.sha256))


class _Bar:
    """Takes the place of the library's progress bar."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self.update = advance

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *details: object) -> None:
        pass

    def close(self) -> None:
        pass


def partial_file(repo: str, file: RepoFile) -> Path:
    """Where an interrupted download is kept; `hf cache` recognizes it as incomplete by its suffix."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type="model")
    return folder / "blobs" / f"{file.sha256}.ggserve.incomplete"


def fetch(repo: str, file: RepoFile, revision: str, report: Report) -> Path:
    """Download a file into the cache unless it is there, and return its path. Raises DownloadError."""
    report(Progress("downloading", file.path.rpartition("/")[2], 0, file.size, file.sha256))
    return _Transfer(repo, file, revision, report).run()
