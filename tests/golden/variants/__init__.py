"""One module per family; each has `VARIANTS`, by file name."""

from __future__ import annotations

import importlib
import pkgutil

from variant import Variant

VARIANTS: dict[str, Variant] = {}
for _module in sorted(m.name for m in pkgutil.iter_modules(__path__)):
    VARIANTS |= importlib.import_module(f"variants.{_module}").VARIANTS
