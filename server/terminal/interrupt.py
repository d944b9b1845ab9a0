"""Handles Ctrl-C at a safe point: not while the engine changes its cache."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType


class DeferredInterrupt:
    """Within its `with` block, the only effect of Ctrl-C is that the next `check` raises KeyboardInterrupt.

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
        """Raises KeyboardInterrupt if Ctrl-C was pressed."""
        if self._pending:
            raise KeyboardInterrupt
