"""GGUF models in the Hugging Face cache, whichever program put them there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.models.hub.choice import RepoFile, RepoModel, models
from server.models.stored import StoredModel


@dataclass(frozen=True)
class CachedRepo:
    """A repository in the cache. folder: of the newest snapshot; the paths of `models` are relative to it.

    cached: as the library returns it, with all snapshots.
    """

    name: str
    folder: Path
    models: list[RepoModel]
    cached: Any

    def model_name(self, model: RepoModel) -> str:
        """hf:OWNER/REPO:QUANT, or :FILE where that would be ambiguous."""
        alone = bool(model.quant) and sum(other.quant == model.quant for other in self.models) == 1
        return f"hf:{self.name}:{model.quant if alone else model.path}"


def repositories() -> Iterator[CachedRepo]:
    """The repositories whose newest snapshot contains complete GGUF models."""
    from huggingface_hub import CacheNotFound

    try:
        repos = _scan().repos
    except (CacheNotFound, ValueError):  # no cache; a file in its place
        return
    for repo in sorted(repos, key=lambda repo: repo.repo_id):
        if repo.repo_type != "model" or not repo.revisions:
            continue
        newest = max(repo.revisions, key=lambda revision: ("main" in revision.refs, revision.last_modified))
        files = []
        for file in newest.files:
            path = file.file_path.relative_to(newest.snapshot_path).as_posix()
            files.append(RepoFile(path, file.size_on_disk, _sha256(file.blob_path)))
        if available := models(files):
            yield CachedRepo(repo.repo_id, newest.snapshot_path, available, repo)


def _scan() -> Any:
    from huggingface_hub import constants, scan_cache_dir

    return scan_cache_dir(constants.HF_HUB_CACHE)


def _sha256(blob: Path) -> str | None:
    """The checksum: a large file's blob is named after it; where links are impossible there are no blobs."""
    return blob.name if len(blob.name) == 64 and blob.name.isalnum() else None


def repository(name: str) -> CachedRepo | None:
    return next((repo for repo in repositories() if repo.name.lower() == name.lower()), None)


def list_models() -> Iterator[StoredModel]:
    for repo in repositories():
        for model in repo.models:
            path = repo.folder / model.path
            try:
                modified = path.stat().st_mtime
            except OSError:  # deleted meanwhile
                continue
            digest = model.files[0].sha256
            yield StoredModel(repo.model_name(model), "hub", path, model.size, digest, modified)


def files(name: str) -> Iterator[Path]:
    """The files that `delete` removes: those of the model listed as `name`, in every snapshot."""
    for cached, paths in _stored(name):
        for revision in cached.revisions:
            yield from (file.file_path for file in revision.files if _path(file, revision) in paths)


def delete(name: str) -> int:
    """Delete the model listed as `name` from every snapshot. Returns the bytes freed."""
    return sum(_delete_files(cached, paths) for cached, paths in _stored(name))


def _stored(name: str) -> Iterator[tuple[Any, set[str]]]:
    """The repository as the library returns it, and the model's paths in its snapshots."""
    for repo in repositories():
        for model in repo.models:
            if repo.model_name(model) == name:
                yield repo.cached, {file.path for file in model.files}


def _path(file: Any, revision: Any) -> str:
    return str(file.file_path.relative_to(revision.snapshot_path).as_posix())


def _delete_files(cached: Any, paths: set[str]) -> int:
    """Delete links first, then blobs that no other link needs; the whole repository if nothing else is in it.

    A link's target outside the repository was put there by a user, so it is kept.
    """
    ours: set[Path] = set()
    others: set[Path] = set()
    links: list[Path] = []
    for revision in cached.revisions:
        for file in revision.files:
            if _path(file, revision) in paths:
                links.append(file.file_path)
                ours.add(file.blob_path)
            else:
                others.add(file.blob_path)
    folder = cached.repo_path.resolve()
    blobs = [blob for blob in ours - others if blob.is_relative_to(folder)]
    sizes = sum(blob.stat().st_size for blob in blobs if blob.exists())
    for path in [*links, *blobs]:
        path.unlink(missing_ok=True)
    if not others:
        hashes = [revision.commit_hash for revision in cached.revisions]
        _scan().delete_revisions(*hashes).execute()
    return sizes
