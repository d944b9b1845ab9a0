"""Copies of the Hugging Face folders of tests/golden/hf, changed; and the tensors of what they become."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from engine.convert.folder import Folder
from engine.gguf import GGUFFile
from support.builders.golden import FOLDER


def tensors(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    with GGUFFile.open(path) as file:
        return {t.name: (t.type.name, tuple(t.shape), bytes(file.data(t))) for t in file.tensors.values()}


def changed(tmp_path: Path, **values: Any) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(FOLDER / "hf" / "qwen2", folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return folder


def moved(folder: Path, source: str, rename: Callable[[str], str], **more: np.ndarray) -> None:
    """The tensors of hf/`source` under other names, and more, in `folder`."""
    shutil.copytree(FOLDER / "hf" / source, folder)
    content = {rename(name): t.read() for name, t in Folder(folder).tensors.items()} | more
    save_file(content, folder / "model.safetensors")
