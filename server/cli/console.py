"""Progress of loading, converting and quantizing: a bar on a terminal, otherwise periodic log lines."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import Any

log = logging.getLogger("ggserve")

LINE_EVERY_S = 5.0


class LoadProgress:
    """Call it with (model, fraction, text) inside its `with` block. It writes to stderr.

    bar: show a bar if stderr is a terminal. clock: seconds, for the interval between log lines.
    """

    def __init__(
        self, *, bar: bool, verb: str = "loading", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._verb, self._clock = verb, clock
        self._bar = bar and sys.stderr.isatty()
        self._rich: Any = None
        self._tasks: dict[str, Any] = {}
        self._line_at = clock() + LINE_EVERY_S

    def __enter__(self) -> LoadProgress:
        if self._bar:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            self._rich = Progress(
                TextColumn(f"{self._verb} {{task.fields[model]}}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f}% {task.fields[text]}"),
                TimeElapsedColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._rich.start()
        return self

    def __call__(self, model: str, fraction: float, text: str) -> None:
        if self._rich is not None:
            if model not in self._tasks:
                self._tasks[model] = self._rich.add_task("", total=1.0, model=model, text=text)
            self._rich.update(self._tasks[model], completed=fraction, text=text)
        elif self._clock() >= self._line_at:
            self._line_at = self._clock() + LINE_EVERY_S
            log.info("%s %s: %.0f%%, %s", self._verb, model, fraction * 100, text)

    def __exit__(self, *details: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the bar; may be called more than once."""
        if self._rich is not None:
            self._rich.stop()
            self._rich = None
