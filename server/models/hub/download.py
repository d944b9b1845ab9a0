"""Downloading a model from the Hub: what exists, which files, their bytes, their checksums."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.models.errors import DownloadError
from server.models.hub import problems
from server.models.hub.choice import Memory, RepoFile, RepoModel, choose, models
from server.models.hub.transfer import fetch, partial_file
from server.models.progress import Progress, Report, size_text
from server.models.reference import NamedModel

REVISION = "main"


@dataclass(frozen=True)
class Download:
    """A model to download. repo: as the Hub spells it. missing: bytes that are not in the cache yet."""

    repo: str
    model: RepoModel
    licence: str | None
    missing: int

    def __str__(self) -> str:
        parts = f" in {len(self.model.files)} parts" if len(self.model.files) > 1 else ""
        licence = f", licence {self.licence}" if self.licence else ""
        return f"{self.repo}: {self.model.path}{parts}, {size_text(self.model.size)}{licence}"


def prepare(named: NamedModel, memory: Memory) -> Download:
    """Ask the Hub for the contents of the repository and choose the model.

    Raises DownloadError: no such repository, no such model in it, no access, no network, no space.
    """
    from huggingface_hub import HfApi, constants, try_to_load_from_cache

    _quiet()
    with problems.explained(named.name):
        info = HfApi(library_name="ggserve").model_info(named.name, files_metadata=True)
    files = [RepoFile(s.rfilename, s.size or 0, s.lfs.sha256 if s.lfs else None) for s in info.siblings or []]
    model = choose(models(files), named.choice, memory, info.id)
    missing = sum(
        file.size - _size(partial_file(info.id, file))
        for file in model.files
        if not isinstance(try_to_load_from_cache(info.id, file.path, revision=info.sha), str)
    )
    folder = Path(constants.HF_HUB_CACHE)
    existing = next(path for path in (folder, *folder.parents) if path.is_dir())
    free = shutil.disk_usage(existing).free
    if missing > free:
        raise problems.no_space(info.id, missing, free, folder)
    card: Any = info.card_data or {}
    licence = card.get("license")
    return Download(info.id, model, str(licence) if licence else None, missing)


def download(plan: Download, report: Report) -> Path:
    """Download what is missing, then verify every file. Returns the path of the first one.

    An exception raised by `report` ends the download; the next one resumes it. Raises DownloadError; a file
    with a wrong checksum is deleted.
    """
    from huggingface_hub import try_to_load_from_cache

    for file in plan.model.files:
        path = fetch(plan.repo, file, REVISION, report)
        _verify(path, file, plan.repo, report)
    first = try_to_load_from_cache(plan.repo, plan.model.path, revision=REVISION)
    if not isinstance(first, str):
        raise DownloadError(f"{plan.repo}: {plan.model.path} is no longer in the cache; pull it again")
    return Path(first)


def header(plan: Download, file: RepoFile, n_bytes: int) -> bytes:
    """The first bytes of a file. Raises DownloadError."""
    from huggingface_hub import get_session, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

    headers = {**build_hf_headers(library_name="ggserve"), "Range": f"bytes=0-{n_bytes - 1}"}
    url = hf_hub_url(plan.repo, file.path, revision=REVISION)
    data = bytearray()
    with (
        problems.explained(plan.repo),
        get_session().stream("GET", url, headers=headers, follow_redirects=True) as response,
    ):
        hf_raise_for_status(response)
        for chunk in response.iter_bytes():  # a server may ignore the range
            data += chunk
            if len(data) >= n_bytes:
                break
    return bytes(data[:n_bytes])


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _quiet() -> None:
    """Silence the library and its HTTP client, which would log every request and every retry."""
    for name, level in (
        ("huggingface_hub", logging.ERROR),
        ("httpx", logging.WARNING),
        ("httpx2", logging.WARNING),
    ):
        logging.getLogger(name).setLevel(level)


def _verify(path: Path, file: RepoFile, repo: str, report: Report) -> None:
    """Compare the checksum, if the repository states one; delete the file if it differs."""
    from huggingface_hub import constants

    if file.sha256 is None:
        return
    name = file.path.rpartition("/")[2]
    digest = hashlib.sha256()
    done = 0
    with path.open("rb") as opened:
        while chunk := opened.read(1 << 24):
            digest.update(chunk)
            done += len(chunk)
            report(Progress("verifying", name, done, file.size, file.sha256))
    if digest.hexdigest() != file.sha256:
        blob = Path(os.path.realpath(path))
        path.unlink()
        if blob.is_relative_to(os.path.realpath(constants.HF_HUB_CACHE)):  # else a user's own file
            blob.unlink(missing_ok=True)
        raise DownloadError(
            f"{repo}: {file.path} has sha256 {digest.hexdigest()}, expected {file.sha256}; "
            "it was removed, pull it again"
        )
