"""Log lines: one per record, nothing forged, the same from everywhere."""

from __future__ import annotations

import io
import json
import logging
import re

import pytest

from server import logs
from server.worker.process.main import _LineFormatter
from support.logging_state import restored_logging


@pytest.fixture
def logged():
    """Configure logging into a buffer; undone afterwards."""

    def configure(level: str, form: str) -> io.StringIO:
        buffer = io.StringIO()
        logs.configure(level, form, buffer)
        return buffer

    with restored_logging():
        yield configure


def test_text_log_has_one_line_per_message(logged):
    buffer = logged("info", "text")
    logging.getLogger("ggserve").info("ready in %.1f s", 1.5)
    logging.getLogger("ggserve").debug("not shown")
    assert re.fullmatch(r"\d\d:\d\d:\d\d INFO    ready in 1.5 s\n", buffer.getvalue())


def test_control_characters_in_a_message_are_escaped(logged):
    buffer = logged("info", "text")
    logging.getLogger("ggserve").info("%s", "a\n00:00:00 ERROR fake\r\x1b[2J\u202e\u2028\x85 ü\t日")
    first, second = buffer.getvalue().splitlines()
    assert first.endswith("INFO    a")
    assert second.startswith(r"    00:00:00 ERROR fake\r\x1b[2J\u202e\u2028\x85 ü")
    assert "日" in buffer.getvalue()


def test_tracebacks_are_indented(logged):
    buffer = logged("info", "text")
    try:
        raise ValueError("first\n00:00:00 ERROR second")
    except ValueError:
        logging.getLogger("ggserve").exception("failed")
    first, *rest = buffer.getvalue().splitlines()
    assert first.endswith("ERROR   failed")
    assert all(line.startswith("    ") for line in rest)


def test_json_log_has_one_object_per_message(logged):
    buffer = logged("info", "json")
    logging.getLogger("ggserve.access").info("x\ny", extra={"fields": {"status": 200, "level": "forged"}})
    try:
        raise ValueError("no")
    except ValueError:
        logging.getLogger("ggserve").exception("failed")
    first, second = map(json.loads, buffer.getvalue().splitlines())
    assert first["message"] == "x\ny"
    assert (first["status"], first["level"], first["logger"]) == (200, "info", "ggserve.access")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first["time"])
    assert "ValueError: no" in second["exception"]


def test_uvicorn_logs_have_the_same_format(logged):
    buffer = logged("info", "json")
    logging.getLogger("uvicorn.error").info("Waiting for application startup.")
    logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    (line,) = buffer.getvalue().splitlines()
    assert json.loads(line)["message"] == "Invalid HTTP request received."
    buffer = logged("debug", "json")
    logging.getLogger("uvicorn.error").info("Waiting for application startup.")
    assert "Waiting" in buffer.getvalue()


def test_records_of_an_engine_process_keep_their_level(logged):
    buffer = logged("info", "json")
    record = logging.LogRecord("engine", logging.ERROR, "", 0, "two\nlines \\n %s", ("x",), None)
    line = _LineFormatter().format(record)
    assert "\n" not in line
    assert logs.relay("stories", line) == (logging.ERROR, "two\nlines \\n x")
    debug = logging.LogRecord("engine", logging.DEBUG, "", 0, "hidden", (), None)
    logs.relay("stories", _LineFormatter().format(debug))
    raw = "GGML_ASSERT(x) failed"
    assert logs.relay("stories", raw) == (logging.WARNING, raw)
    entries = [json.loads(line) for line in buffer.getvalue().splitlines()]
    assert [(e["level"], e["message"]) for e in entries] == [
        ("error", "[stories] two"),
        ("error", r"[stories] lines \n x"),
        ("warning", "[stories] GGML_ASSERT(x) failed"),
    ]
