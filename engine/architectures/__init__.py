"""One file per architecture, found by the file's `general.architecture`; nothing to register."""

from __future__ import annotations

import importlib
import pkgutil
import re

from engine.errors import UnsupportedModelError
from engine.nn.hparams import Architecture


def _modules() -> list[str]:
    return [m.name for m in pkgutil.iter_modules(__path__)]


def _load(module: str) -> type[Architecture]:
    found: type[Architecture] = importlib.import_module(f"engine.architectures.{module}").ARCHITECTURE
    return found


def names() -> list[str]:
    """Every architecture that there is a file for, as GGUF files call it."""
    return sorted(_load(module).name for module in _modules())


def get(name: str) -> type[Architecture]:
    """The architecture called `name` in GGUF files. UnsupportedModelError lists what there is."""
    module = re.sub(r"\W", "_", name)
    if module not in _modules() or _load(module).name != name:
        raise UnsupportedModelError(
            f"general.architecture is {name!r}, which is not supported (supported: {', '.join(names())}); "
            "CONTRIBUTING.md has the checklist for adding one"
        )
    return _load(module)
