"""Logging of the server: one line per record, as text or as JSON, for all libraries.

A record may carry `extra={"fields": {...}}`, which become separate keys in JSON. Control characters are
escaped, so that no request can forge a log line or control a terminal.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from typing import Any, TextIO

log = logging.getLogger("ggserve")

_LEVEL = re.compile(r"<(\d\d)>([\w.]*): (.*)", re.DOTALL)
# C0 except tab, DEL, C1, line and paragraph separators, and bidirectional controls.
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def escape(text: str) -> str:
    """`text` with every control character escaped."""
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)


class TextFormatter(logging.Formatter):
    """`12:34:56 INFO    message`; continuation lines are indented, so that none can pass for a record."""

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        lines = "\n    ".join(escape(line) for line in text.split("\n"))
        return f"{clock} {record.levelname:<7} {lines}"


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time (UTC), level, logger, message, the record's fields, exception."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry: dict[str, Any] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for key, value in getattr(record, "fields", {}).items():
            entry.setdefault(str(key), value)
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)  # ASCII only: control characters come out escaped


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to the current sys.stderr, which a progress bar replaces while it is shown."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


def configure(level: str = "info", form: str = "text", stream: TextIO | None = None) -> None:
    """Send all records of this process to `stream` (default: stderr). form: text or json."""
    handler = _StderrHandler() if stream is None else logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # uvicorn logs its start and stop, and installs handlers itself.
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.DEBUG if level == "debug" else logging.WARNING)
    for name in ("asyncio", "gguf", "httpx", "httpcore", "multipart"):
        logging.getLogger(name).setLevel(logging.INFO if level == "debug" else logging.WARNING)
    logging.captureWarnings(True)


def relay(engine: str, line: str) -> tuple[int, str]:
    """Log a line that an engine process wrote to stderr. Returns its level and its text.

    Log records come as `<LEVEL>logger: text`; ggml, drivers and crash reports print plain text, logged as a
    warning.
    """
    match = _LEVEL.fullmatch(line)
    if match:
        level, text = int(match[1]), re.sub(r"\\([\\n])", lambda m: "\n" if m[1] == "n" else "\\", match[3])
    else:
        level, text = logging.WARNING, line
    logger = logging.getLogger(f"ggserve.engine.{engine}")
    for part in text.split("\n"):
        logger.log(level, "[%s] %s", engine, part)
    return level, text
