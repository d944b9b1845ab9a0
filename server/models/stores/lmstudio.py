"""LM Studio's models: PUBLISHER/REPOSITORY/FILE.gguf below its folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from server.models.errors import ModelNotFound
from server.models.hub.choice import RepoFile, RepoModel, models
from server.models.stored import StoredModel


def folders() -> list[Path]:
    """LM Studio's current folder and its former one; both are read."""
    return [Path.home() / ".lmstudio" / "models", Path.home() / ".cache" / "lm-studio" / "models"]


def list_models() -> Iterator[StoredModel]:
    """All models whose parts are complete."""
    for folder in folders():
        for model in _models(folder):
            path = folder / model.path
            try:
                modified = path.stat().st_mtime
            except OSError:  # deleted meanwhile
                continue
            yield StoredModel(f"lmstudio:{model.path}", "lmstudio", path, model.size, None, modified)


def find(name: str) -> StoredModel:
    """The model of `lmstudio:PUBLISHER/REPOSITORY[/FILE.gguf]`. Raises ModelNotFound."""
    available = list(list_models())
    texts = [model.name.removeprefix("lmstudio:") for model in available]
    same = [
        m for m, text in zip(available, texts, strict=True) if text == name or text.startswith(f"{name}/")
    ]
    if len(same) == 1:
        return same[0]
    where = folders()[0]
    if same:
        raise ModelNotFound(
            f"lmstudio:{name} holds several models: {', '.join(model.name for model in same)}"
        )
    known = f"it has {', '.join(texts)}" if texts else "it is empty"
    raise ModelNotFound(f"LM Studio's folder ({where}) has no {name}; {known}")


def _models(folder: Path) -> list[RepoModel]:
    files = []
    for path in folder.glob("*/*/*.gguf"):
        try:
            files.append(RepoFile(path.relative_to(folder).as_posix(), os.stat(path).st_size))
        except OSError:
            continue
    return sorted(models(files), key=lambda model: model.path)
