"""What of the settings concerns the server's side of an engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from server.config.settings import Settings


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """The server's side of an engine; `Settings` has the same names."""

    max_queue: int = 64
    send_timeout_s: float = 60.0
    stall_s: float = 60.0
    log_level: str = "info"

    @classmethod
    def from_settings(cls, settings: Settings) -> EngineOptions:
        return cls(
            max_queue=settings.max_queue,
            send_timeout_s=settings.send_timeout_s,
            stall_s=settings.stall_s,
            log_level=settings.log_level,
        )
