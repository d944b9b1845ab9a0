"""Mistakes in reading a model, which the golden references must notice: one module per group of families.

Each has `MISTAKES`: what is wrong -> (the variant that shows it, the change that makes it wrong).
"""

from __future__ import annotations

import importlib
import pkgutil

from support.mistakes.changes import Change

MISTAKES: dict[str, tuple[str, Change]] = {}
for _module in sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name != "changes"):
    MISTAKES |= importlib.import_module(f"{__name__}.{_module}").MISTAKES
