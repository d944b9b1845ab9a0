"""What sentence-transformers' files say about a folder: pooling, matrices behind it, and normalisation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from engine.convert.folder import read_json, stored_tensors
from engine.convert.tensors import SourceTensor
from engine.errors import ModelError, UnsupportedModelError

_MODES = {"mean_tokens": "mean", "cls_token": "cls", "lasttoken": "last"}

_ORDER = ("Transformer", "Pooling", "Dense", "Normalize")


class EmbeddingSettings(NamedTuple):
    """pooling: one of `engine.hparams.POOLING`. dense: folders of matrices. None: the folder does not say."""

    pooling: str | None = None
    normalize: bool | None = None
    dense: tuple[Path, ...] = ()


def embedding_settings(folder: Path) -> EmbeddingSettings:
    """From modules.json, which lists the modules in order; older folders have a pooling only.

    Raises UnsupportedModelError for modules that change vectors in other ways, such as LayerNorm.
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
    others = [kind for kind, _ in kinds if kind not in _ORDER]
    if others:
        raise UnsupportedModelError(
            f"{path}: module {others[0]} is not supported (supported: {', '.join(_ORDER)})"
        )
    order = [_ORDER.index(kind) for kind, _ in kinds]
    if order != sorted(order):
        raise UnsupportedModelError(f"{path}: the modules must be in the order {', '.join(_ORDER)}")
    pooling = next((_pooling(folder / place) for kind, place in kinds if kind == "Pooling"), None)
    dense = tuple(folder / place for kind, place in kinds if kind == "Dense")
    return EmbeddingSettings(pooling, any(kind == "Normalize" for kind, _ in kinds), dense)


def dense_tensors(folders: Sequence[Path], names: Sequence[str]) -> dict[str, SourceTensor]:
    """The matrices of Dense modules, as the modules `names`, which are all that the model may have behind it.

    Raises UnsupportedModelError for another number of them, and for a bias or an activation.
    """
    if folders and len(folders) != len(names):
        number = f"{len(names)} of them" if names else "none"
        raise UnsupportedModelError(
            f"{folders[0].parent / 'modules.json'}: {len(folders)} modules Dense are not supported "
            f"(supported for this model: {number})"
        )
    tensors: dict[str, SourceTensor] = {}
    for folder, name in zip(folders, names, strict=False):
        config = read_json(folder, "config.json", False)
        activation = str(config.get("activation_function", "")).rpartition(".")[2]
        stored = stored_tensors(folder / "model.safetensors", "modules.json")
        is_matrix = set(stored) == {"linear.weight"} and len(stored["linear.weight"].shape) == 2
        if activation != "Identity" or not is_matrix:
            raise UnsupportedModelError(
                f"{folder}: a module Dense with {activation or 'no activation function'} and the tensors "
                f"{', '.join(sorted(stored))} is not supported (supported: Identity, a matrix linear.weight)"
            )
        tensors[f"{name}.linear.weight"] = stored["linear.weight"]
    return tensors


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
