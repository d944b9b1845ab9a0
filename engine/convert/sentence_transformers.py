"""What sentence-transformers' files say about a folder: pooling, and whether vectors are normalised."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from engine.convert.folder import read_json
from engine.errors import ModelError, UnsupportedModelError

_MODES = {"mean_tokens": "mean", "cls_token": "cls", "lasttoken": "last"}


class EmbeddingSettings(NamedTuple):
    """pooling: one of `engine.hparams.POOLING`. None: the folder does not say."""

    pooling: str | None = None
    normalize: bool | None = None


def embedding_settings(folder: Path) -> EmbeddingSettings:
    """From modules.json, which lists the modules in order; older folders have a pooling only.

    Raises UnsupportedModelError for modules that change vectors in other ways, such as Dense.
    """
    path = folder / "modules.json"
    if not path.is_file():
        paths = sorted(folder.glob("*_Pooling"))
        return EmbeddingSettings(_pooling(paths[0])) if paths else EmbeddingSettings()
    try:
        modules = json.loads(path.read_text(encoding="utf-8"))
        kinds = [(str(module["type"]).rpartition(".")[2], str(module.get("path", ""))) for module in modules]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{path} cannot be read: {error!r}") from error
    others = [kind for kind, _ in kinds if kind not in ("Transformer", "Pooling", "Normalize")]
    if others:
        raise UnsupportedModelError(
            f"{path}: module {others[0]} is not supported (supported: Transformer, Pooling, Normalize)"
        )
    pooling = next((_pooling(folder / place) for kind, place in kinds if kind == "Pooling"), None)
    return EmbeddingSettings(pooling, any(kind == "Normalize" for kind, _ in kinds))


def _pooling(folder: Path) -> str:
    config = read_json(folder, "config.json", False)
    if isinstance(mode := config.get("pooling_mode"), str):  # sentence-transformers 5
        enabled = [{"lasttoken": "last"}.get(mode, mode)]
    else:
        enabled = [mode.removeprefix("pooling_mode_") for mode, on in config.items() if on is True]
        enabled = [_MODES.get(mode, mode) for mode in enabled if mode != "include_prompt"]
    if len(enabled) != 1 or enabled[0] not in _MODES.values():
        modes = ", ".join(enabled) or "none"
        raise UnsupportedModelError(
            f"{folder / 'config.json'}: pooling by {modes} is not supported (supported: {', '.join(_MODES)})"
        )
    return enabled[0]
