"""Short names of models: configs/models.yml, and a file of the user's own."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from server.models import reference
from server.models.errors import DownloadError

_HUB = re.compile(r"^(https://)?(hf\.co|huggingface\.co)/")


@dataclass(frozen=True)
class ShortName:
    """repository: OWNER/REPO or OWNER/REPO:QUANT on the Hub.

    licence: of the weights, if the file states it.
    """

    repository: str
    licence: str | None


def expand(name: str) -> str:
    """The reference that a short name or a Hub address stands for; other names are returned unchanged.

    `NAME:QUANT` chooses another file of a short name. Raises DownloadError for an invalid file.
    """
    name = _HUB.sub("hf:", name)
    if not reference.looks_short(name) or name in (reference.DEFAULT, reference.BUNDLED):
        return name
    stem, colon, quant = name.partition(":")
    short = short_names().get(name.lower()) or short_names().get(stem.lower())
    if short is None:
        return name
    if colon and name.lower() not in short_names():
        return f"hf:{short.repository.partition(':')[0]}:{quant}"
    return f"hf:{short.repository}"


def short_names() -> dict[str, ShortName]:
    """Lower-case name → repository; the user's file takes precedence."""
    return {**_read(_shipped()), **_read(user_file())}


def user_file() -> Path:
    """GGSERVE_MODELS_FILE, or else ggserve/models.yml in the platform's configuration directory."""
    if path := os.environ.get("GGSERVE_MODELS_FILE"):
        return Path(path).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("APPDATA") or Path.home() / "AppData" / "Roaming")
    else:
        base = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return base / "ggserve" / "models.yml"


def _shipped() -> Path:
    """The file in configs/ of a checkout, or where setup.py copies it on installation."""
    here = Path(__file__).resolve()
    copy = here.with_name("models.yml")
    return copy if copy.is_file() else here.parents[2] / "configs" / "models.yml"


def _read(path: Path) -> dict[str, ShortName]:
    try:
        facts = path.stat()
    except OSError:
        return {}
    return _parse(path, facts.st_mtime_ns)


@cache
def _parse(path: Path, modified: int) -> dict[str, ShortName]:
    import yaml

    try:
        document: Any = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        entries = {str(name).lower(): _entry(value) for name, value in document.items()}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DownloadError(
            f"{path}: {reason}; expected lines such as `name: OWNER/REPO` or "
            "`name: {repository: OWNER/REPO:QUANT}`"
        ) from error
    return entries


def _entry(value: Any) -> ShortName:
    repository, licence = value, None
    if isinstance(value, dict):
        repository, licence = value.get("repository"), value.get("licence")
    if not isinstance(repository, str):
        raise ValueError(f"{value!r} does not name a repository")
    text = repository.removeprefix("hf:")
    reference.parse(f"hf:{text}")
    return ShortName(text, None if licence is None else str(licence))
