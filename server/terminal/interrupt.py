"""Ctrl-C at a safe place: not in the middle of what the engine does to its cache."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType


class DeferredInterrupt:
    """Within its `with` block Ctrl-C has no effect but that the next `check` raises KeyboardInterrupt.

    For the main thread only.
    """

    def __enter__(self) -> DeferredInterrupt:
        self._pending = False
        self._before = signal.signal(signal.SIGINT, self._remember)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self._pending = True

    def check(self) -> None:
        """Raise KeyboardInterrupt if there was a Ctrl-C."""
        if self._pending:
            raise KeyboardInterrupt
