"""ggserve's engine: GGUF models on ggml, without HTTP. `import engine` needs neither a model nor a GPU.

Public names are resolved on first use, so that plain Python parts can be imported without the compiled
extensions. `__init__.pyi` declares them for type checkers.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

if sys.platform == "win32":  # which has no rpath: ggml's libraries are looked for here
    os.add_dll_directory(str(Path(__file__).parent / "lib"))

_PUBLIC = {
    "ConfigError": "engine.errors",
    "Constraint": "engine.types",
    "ContextOverflowError": "engine.errors",
    "Device": "engine.ggml.backend",
    "DeviceError": "engine.errors",
    "EngineError": "engine.errors",
    "GgmlError": "engine.errors",
    "InferenceParameters": "engine.types",
    "InferenceSession": "engine.session",
    "InferenceSessionConfig": "engine.config",
    "LoraAdapter": "engine.config",
    "Model": "engine.engine",
    "ModelError": "engine.errors",
    "ModelParameters": "engine.config",
    "OutOfMemoryError": "engine.errors",
    "Request": "engine.types",
    "Scheduler": "engine.scheduler.scheduler",
    "SchedulerConfig": "engine.config",
    "SessionClosedError": "engine.errors",
    "StorageError": "engine.errors",
    "Thinking": "engine.types",
    "Tokenizer": "engine.tokenizer",
    "UnsupportedModelError": "engine.errors",
    "devices": "engine.ggml.backend",
    "load": "engine.engine",
    "load_tokenizer": "engine.tokenizer",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'engine' has no attribute {name!r}")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
