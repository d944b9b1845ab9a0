"""Which files of a repository make up one model, and which model is meant."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from server.models.errors import ModelNotFound
from server.models.progress import size_text

DEFAULT_QUANT = "Q4_K_M"
_PART = re.compile(r"(?P<stem>.+)-(?P<part>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)
_FLOAT = r"B?F16|F32"
_QUANT = re.compile(
    rf"(?:^|[-._])(?P<quant>(?:UD-)?(?:I?Q\d+(?:_[A-Z0-9]+)*|TQ\d_\d|MXFP4(?:_MOE)?|NVFP4|{_FLOAT}))(?=$|[-._])",
    re.IGNORECASE,
)
# Of the free memory, what weights may take; the rest is for the KV cache and the computation.
WEIGHTS_SHARE = 0.85
Memory = Callable[[], int | None]  # bytes that are free for a model; None: any size fits


@dataclass(frozen=True)
class RepoFile:
    """path: in the repository. size: in bytes. sha256: in hexadecimal, if the repository states it."""

    path: str
    size: int
    sha256: str | None = None


@dataclass(frozen=True)
class RepoModel:
    """The files of one model, all parts in order. quant: Q4_K_M, …; empty if the name does not state it."""

    quant: str
    files: tuple[RepoFile, ...]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def path(self) -> str:
        """The path of the first part."""
        return self.files[0].path


def models(files: Iterable[RepoFile]) -> list[RepoModel]:
    """The models of a repository, smallest first, without incomplete split models and projectors."""
    sets: dict[tuple[str, int], dict[int, RepoFile]] = {}
    for file in files:
        path = PurePosixPath(file.path)
        if path.suffix.lower() != ".gguf" or re.search("mmproj|imatrix", path.name, re.IGNORECASE):
            continue
        part = _PART.fullmatch(path.name)
        stem = (path.parent / (part["stem"] if part else path.stem)).as_posix()
        count = int(part["count"]) if part else 1
        sets.setdefault((stem, count), {})[int(part["part"]) if part else 1] = file
    models = [
        RepoModel(quant_of(stem), tuple(parts[n] for n in range(1, count + 1)))
        for (stem, count), parts in sets.items()
        if len(parts) == count and parts.keys() == set(range(1, count + 1))  # count: whatever a name says
    ]
    return sorted(models, key=lambda model: (model.size, model.path))


def quant_of(stem: str) -> str:
    """The quantization in a file's name, or else in its folder's name, in upper case."""
    for name in reversed(PurePosixPath(stem).parts):
        if matches := list(_QUANT.finditer(name)):
            return matches[-1]["quant"].upper()
    return ""


def choose(available: Sequence[RepoModel], choice: str, memory: Memory, where: str) -> RepoModel:
    """The model that `choice` (a quantization or file) means; without it Q4_K_M, else the largest that fits.

    memory: called only if it matters. where: the repository, for messages. Raises ModelNotFound, which lists
    the models that exist.
    """
    if not available:
        raise ModelNotFound(
            f"{where} holds no GGUF file; look for a repository whose name ends in -GGUF, or convert "
            "its model with `ggserve convert`"
        )
    if choice.lower().endswith(".gguf"):
        same = [m for m in available if any(choice in (f.path, PurePosixPath(f.path).name) for f in m.files)]
    elif choice:
        same = [m for m in available if m.quant == choice.upper()]
    elif not (same := [m for m in available if m.quant == DEFAULT_QUANT]):
        return _largest(available, memory(), where)
    if len(same) == 1:
        return same[0]
    if same:
        paths = ", ".join(model.path for model in same)
        raise ModelNotFound(f"{where} has several {same[0].quant} models; append :FILE, one of {paths}")
    names = dict.fromkeys(model.quant or model.path for model in available)
    raise ModelNotFound(f"{where} has no {choice}; it has {', '.join(names)}")


def _largest(available: Sequence[RepoModel], memory: int | None, where: str) -> RepoModel:
    """The largest model. Floating-point weights only if there are no others: they are slow and hardly better
    than Q8_0.
    """
    quantized = [model for model in available if not re.fullmatch(_FLOAT, model.quant)] or available
    fitting = [model for model in quantized if memory is None or model.size <= memory * WEIGHTS_SHARE]
    if not fitting:
        least = quantized[0]
        raise ModelNotFound(
            f"no model of {where} fits in the free memory ({size_text(memory or 0)}); to download the "
            f"smallest one anyway, append :{least.quant or least.path} ({size_text(least.size)})"
        )
    return fitting[-1]
