"""The build backend of pip: setuptools, after a look at the compiler.

pip installs a build environment before it runs a backend, which takes half a minute. So this backend needs
nothing, refuses what could not be compiled, and only then names what to install: pyproject.toml's group
`build`.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ggml.fetch import BuildError, fail

Settings = Mapping[str, Any] | None
ROOT = Path(__file__).resolve().parents[1]
NOTICE = "ggserve: compiling ggml and the engine, which takes minutes; `pip install -v` shows the progress"


def requirements() -> list[str]:
    """What the build needs."""
    groups: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    return groups["build"]


def _checked_requirements() -> list[str]:
    from ggml import build

    try:
        build.check()
    except BuildError as error:
        fail(error)
    return requirements()


def get_requires_for_build_wheel(config_settings: Settings = None) -> list[str]:
    return _checked_requirements()


def get_requires_for_build_editable(config_settings: Settings = None) -> list[str]:
    return _checked_requirements()


def get_requires_for_build_sdist(config_settings: Settings = None) -> list[str]:
    return requirements()


def prepare_metadata_for_build_wheel(folder: str, config_settings: Settings = None) -> str:
    return str(_setuptools().prepare_metadata_for_build_wheel(folder, config_settings))


def prepare_metadata_for_build_editable(folder: str, config_settings: Settings = None) -> str:
    return str(_setuptools().prepare_metadata_for_build_editable(folder, config_settings))


def build_wheel(folder: str, config_settings: Settings = None, metadata: str | None = None) -> str:
    notify()
    return str(_setuptools().build_wheel(folder, config_settings, metadata))


def build_editable(folder: str, config_settings: Settings = None, metadata: str | None = None) -> str:
    notify()
    return str(_setuptools().build_editable(folder, config_settings, metadata))


def build_sdist(folder: str, config_settings: Settings = None) -> str:
    return str(_setuptools().build_sdist(folder, config_settings))


def _setuptools() -> Any:
    """Installed by now."""
    return importlib.import_module("setuptools.build_meta")


def notify() -> None:
    """Say on the terminal what takes so long: pip shows nothing of what a build prints, unless with -v."""
    if sys.stderr.isatty():
        print(NOTICE, file=sys.stderr)
        return
    if os.name != "nt":
        with contextlib.suppress(OSError), open("/dev/tty", "w") as terminal:
            terminal.write(f"\n{NOTICE}\n")
