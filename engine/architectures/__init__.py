"""One file per architecture: its hyperparameters, its tensors and its graph, built from the parts in
`engine.nn`.

A file is found by `general.architecture`; there is no registry. Imports `engine.nn`; used by `engine.model`,
which loads models, and by `engine.convert`.
"""

from __future__ import annotations

import importlib
import pkgutil
import re

from engine.errors import UnsupportedModelError
from engine.nn.architecture import Architecture


def module_name(architecture: str) -> str:
    """The name of an architecture's files: characters other than letters, digits and _ become _."""
    return re.sub(r"\W", "_", architecture)


def _modules() -> list[str]:
    return [m.name for m in pkgutil.iter_modules(__path__)]


def _load(module: str) -> type[Architecture]:
    path = f"{__name__}.{module}"
    names = vars(importlib.import_module(path)).values()
    classes = [n for n in names if isinstance(n, type) and issubclass(n, Architecture)]
    return next(c for c in classes if c.__module__ == path)  # the others are imported


def names() -> list[str]:
    """The supported architectures, under their names in GGUF files."""
    return sorted(_load(module).name for module in _modules())


def get(name: str) -> type[Architecture]:
    """The architecture named `name` in GGUF files. The UnsupportedModelError lists the supported ones."""
    module = module_name(name)
    if module not in _modules() or _load(module).name != name:
        raise UnsupportedModelError(
            f"general.architecture is {name!r}, which is not supported (supported: {', '.join(names())}); "
            "CONTRIBUTING.md has the checklist for adding one"
        )
    return _load(module)
