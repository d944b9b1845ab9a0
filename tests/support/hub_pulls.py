"""Downloads from a Hub, and what it was asked for."""

from __future__ import annotations

from pathlib import Path

from server.models.hub import download
from server.models.progress import Progress
from server.models.reference import NamedModel
from support.fakes.hub import FakeHub


def pull(name: str, choice: str = "") -> tuple[Path, list[Progress]]:
    reports: list[Progress] = []
    plan = download.prepare(NamedModel("hf", name, choice), lambda: None)
    return download.download(plan, reports.append), reports


def served(hub: FakeHub, path: str) -> list[str | None]:
    """The ranges of the downloads of a file."""
    return [range for _, name, range in hub.requests if name.startswith("/cdn") and name.endswith(f"/{path}")]
