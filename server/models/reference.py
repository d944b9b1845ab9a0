"""What --model accepts besides a file: `hf:OWNER/REPO:QUANT`, `ollama:NAME`, `lmstudio:NAME`, a short name.

This only parses text; `server.models.resolver` turns references into files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

# What is served without --model.
DEFAULT = "smollm2-135m-instruct"
BUNDLED = "stories"

Scheme = Literal["hf", "ollama", "lmstudio"]
_HUB = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(:(?P<choice>[\w./-]+))?", re.ASCII)
_OLLAMA = re.compile(r"(?P<name>[\w.-]+(:\d+)?/)?([\w.-]+/)?[\w.-]+(:[\w.-]+)?", re.ASCII)
_SHORT = re.compile(r"[a-z0-9][\w.-]*(:[\w.-]+)?", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class NamedModel:
    """name: OWNER/REPO, or the name in the store. choice: a quantization, or a file of the repository."""

    scheme: Scheme
    name: str
    choice: str = ""

    @property
    def served_name(self) -> str:
        """The model's name over HTTP unless NAME= sets one: without owner and -GGUF, in lower case."""
        if self.scheme == "ollama":
            return self.name
        stem = self.name.rpartition("/")[2]
        stem = stem.removesuffix(".gguf")
        return re.sub(r"[-_.]gguf$", "", stem, flags=re.IGNORECASE).lower()

    def __str__(self) -> str:
        return f"{self.scheme}:{self.name}" + (f":{self.choice}" if self.choice else "")


def parse(text: str) -> NamedModel | None:
    """The reference in `text`; None: it is a path. Raises ValueError if it is neither."""
    scheme, colon, rest = text.partition(":")
    if not colon or scheme not in ("hf", "ollama", "lmstudio"):
        return None
    if scheme == "hf":
        match = _HUB.fullmatch(rest)
        if match is None or ".." in rest:
            raise ValueError(f"{text[:200]!r} must be hf:OWNER/REPO or hf:OWNER/REPO:QUANT")
        return NamedModel("hf", match["repo"], match["choice"] or "")
    if scheme == "ollama":
        if not _OLLAMA.fullmatch(rest) or ".." in rest:
            raise ValueError(f"{text[:200]!r} must be ollama:NAME or ollama:NAME:TAG")
        return NamedModel("ollama", rest)
    if not rest or rest.startswith("/") or ".." in rest.split("/"):
        raise ValueError(f"{text[:200]!r} must be lmstudio:NAME, as `ggserve list` shows it")
    return NamedModel("lmstudio", rest)


def looks_short(text: str) -> bool:
    """Whether `text` could be a short name rather than a file."""
    return not text.lower().endswith(".gguf") and _SHORT.fullmatch(text) is not None
