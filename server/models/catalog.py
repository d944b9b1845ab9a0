"""The models on this machine: listed, pulled and deleted by name. Used by commands and APIs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from server.models import reference, resolver, wheel
from server.models.bundled import bundled_model
from server.models.errors import ModelNotFound, NotRemovable
from server.models.hub import cache
from server.models.reference import NamedModel
from server.models.resolver import SILENTLY, Pulling
from server.models.short_names import expand, short_names
from server.models.stored import StoredModel
from server.models.stores import lmstudio, ollama
from server.models.wheel import SMOLLM2


def list_models() -> list[StoredModel]:
    """Every model that --model can name and that needs no download."""
    models = [*_own(), *cache.list_models(), *ollama.list_models(), *lmstudio.list_models()]
    return list({model.name: model for model in models}.values())


def find(name: str) -> StoredModel | None:
    """The model that `name` means: a listed name, also without hf: or without a tag that is not needed."""
    full_name = expand(name)
    models = list_models()
    for text in (full_name, f"hf:{full_name}"):
        same = [m for m in models if m.name == text] or [m for m in models if m.name.startswith(f"{text}:")]
        if len(same) == 1:
            return same[0]
    return None


def pull(name: str, pulling: Pulling = SILENTLY) -> Path:
    """Download what `name` means (hf:OWNER/REPO[:QUANT], also without hf:, or a short name), and verify it.

    Returns the path of its first file. Raises DownloadError, and ValueError if `name` is not such a name.
    """
    named = to_pull(name)
    if named is not None:
        return resolver.pull(named, pulling)
    wheel.fetch(SMOLLM2, pulling.report)
    return SMOLLM2.model


def to_pull(name: str) -> NamedModel | None:
    """The repository that `name` means; None: the default model. Raises ValueError or ModelNotFound."""
    text = expand(name)
    if text == reference.DEFAULT:
        return None
    if reference.looks_short(text) and ":" not in text.removeprefix("hf:"):
        names = ", ".join([reference.DEFAULT, *short_names()])
        raise ModelNotFound(f"{name} is not a short name ({names}); name a repository as OWNER/REPO[:QUANT]")
    named = reference.parse(text) or reference.parse(f"hf:{text}")
    if named is None or named.scheme != "hf":
        raise ModelNotFound(f"{name} cannot be pulled; name a repository of the Hub as OWNER/REPO[:QUANT]")
    return named


def delete(name: str) -> tuple[str, int]:
    """Delete a downloaded model. Returns its name and the bytes freed. Raises DownloadError."""
    model = find(name)
    if model is None:
        raise ModelNotFound(f"there is no model {name} on this machine; see `ggserve list`")
    if model.source == "hub":
        return model.name, cache.delete(model.name)
    if model.source == "package":
        shutil.rmtree(SMOLLM2.target)
        return model.name, model.size
    owner = {
        "bundled": "is part of ggserve and cannot be removed",
        "ollama": "belongs to Ollama; remove it with `ollama rm`",
        "lmstudio": "belongs to LM Studio; remove it there",
    }
    raise NotRemovable(f"{name} {owner[model.source]}")


def files(model: StoredModel) -> list[Path]:
    """The files that `delete` would remove for the model, including those of older snapshots."""
    return list(cache.files(model.name)) if model.source == "hub" else [model.path]


def _own() -> Iterator[StoredModel]:
    """The bundled model and the default model."""
    path = bundled_model()
    facts = path.stat()
    yield StoredModel(reference.BUNDLED, "bundled", path, facts.st_size, None, facts.st_mtime)
    if SMOLLM2.model.is_file():
        facts = SMOLLM2.model.stat()
        yield StoredModel(reference.DEFAULT, "package", SMOLLM2.model, facts.st_size, None, facts.st_mtime)
