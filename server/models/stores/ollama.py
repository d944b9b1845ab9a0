"""Ollama's models: a manifest for each name, and the GGUF file among its blobs."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from server.models.errors import DownloadError, ModelNotFound
from server.models.stored import StoredModel

REGISTRY, NAMESPACE, TAG = "registry.ollama.ai", "library", "latest"
_MODEL = "application/vnd.ollama.image.model"
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_MANIFEST_BYTES = 1 << 20


def folders() -> list[Path]:
    """Ollama's folders: OLLAMA_MODELS, or else the user's folder and that of its Linux service."""
    if path := os.environ.get("OLLAMA_MODELS"):
        return [Path(path).expanduser()]
    return [Path.home() / ".ollama" / "models", Path("/usr/share/ollama/.ollama/models")]


def list_models() -> Iterator[StoredModel]:
    """The models whose file exists; a damaged manifest hides only its own model."""
    for folder in folders():
        try:
            manifests = sorted((folder / "manifests").glob("*/*/*/*"))
        except OSError:  # another user's
            continue
        for manifest in manifests:
            try:
                yield _read(folder, manifest)
            except (DownloadError, OSError):
                continue


def find(name: str) -> StoredModel:
    """The model of `ollama:NAME[:TAG]`. Raises ModelNotFound, or DownloadError if it is unusable."""
    for folder in folders():
        manifest = folder / "manifests" / _manifest(name)
        try:
            if manifest.is_file():
                return _read(folder, manifest)
        except OSError as error:
            raise DownloadError(f"{manifest}: {error.strerror or error}") from error
    names = ", ".join(model.name for model in list_models())
    known = f"it has {names}" if names else "it is empty"
    raise ModelNotFound(
        f"Ollama's store ({folders()[0]}) has no {name}; {known}. Pull the model with `ollama pull {name}`, "
        "or set OLLAMA_MODELS to the folder of the store"
    )


def _manifest(name: str) -> str:
    """HOST/NAMESPACE/MODEL/TAG; omitted parts have Ollama's defaults."""
    path, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        path, tag = name, TAG
    parts = path.split("/")
    defaults = [REGISTRY, NAMESPACE]
    return "/".join([*defaults[: max(0, 3 - len(parts))], *parts, tag])


def _name(manifest: Path) -> str:
    host, namespace, model, tag = manifest.parts[-4:]
    prefix = "" if host == REGISTRY and namespace == NAMESPACE else f"{namespace}/"
    return ("" if host == REGISTRY else f"{host}/") + f"{prefix}{model}:{tag}"


def _read(folder: Path, manifest: Path) -> StoredModel:
    name = _name(manifest)
    if not manifest.is_file() or manifest.stat().st_size > _MANIFEST_BYTES:  # reading a pipe would block
        raise DownloadError(f"ollama:{name}: {manifest} is not a manifest")
    try:
        document: Any = json.loads(manifest.read_bytes())
        digests = [layer["digest"] for layer in document["layers"] if layer["mediaType"] == _MODEL]
        matches = [_DIGEST.fullmatch(digest) for digest in digests]
    except (ValueError, KeyError, TypeError, RecursionError):
        matches = [None]
    if not matches:
        raise DownloadError(
            f"ollama:{name} has no weights on this machine (it runs in Ollama's cloud); pull another model"
        )
    if len(matches) > 1 or matches[0] is None:
        raise DownloadError(f"ollama:{name}: {manifest} cannot be read; repair it with `ollama pull {name}`")
    digest = matches[0][1]
    blob = folder / "blobs" / f"sha256-{digest}"
    if not blob.is_file():
        raise DownloadError(f"ollama:{name}: {blob} is missing; repair it with `ollama pull {name}`")
    facts = blob.stat()
    return StoredModel(f"ollama:{name}", "ollama", blob, facts.st_size, digest, manifest.stat().st_mtime)
