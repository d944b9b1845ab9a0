"""Turns C results into exceptions, and ggml's log into Python's.

Every wrapper converts its arguments, makes one call without the GIL, checks it with `ok` or `not_null`, and wraps
the result.
"""

import logging

from engine.errors import GgmlError, OutOfMemoryError
from engine.libggml.ggml cimport (
    GGML_LOG_LEVEL_CONT, GGML_LOG_LEVEL_ERROR, GGML_LOG_LEVEL_WARN, GGML_STATUS_ALLOC_FAILED, GGML_STATUS_SUCCESS,
    ggml_log_level, ggml_log_set, ggml_status,
)

_logger = logging.getLogger("ggserve.ggml")
cdef str _last_error = ""
cdef str _line = ""


cdef void _on_log(ggml_log_level level, const char* text, void* user_data) noexcept with gil:
    # ggml may call from any thread and in pieces; an exception must not travel into C.
    global _last_error, _line
    try:
        piece = text.decode("utf-8", "replace")
        _line = _line + piece if level == GGML_LOG_LEVEL_CONT else piece
        if not _line.endswith("\n"):
            return
        line, _line = _line.strip(), ""
        if level == GGML_LOG_LEVEL_ERROR:
            _last_error = line
            _logger.error("%s", line)
        elif level == GGML_LOG_LEVEL_WARN:
            _logger.warning("%s", line)
        else:
            _logger.debug("%s", line)
    except BaseException:  # at interpreter shutdown there is nothing to report to
        pass


def capture_log():
    """Send ggml's log to the logger `ggserve.ggml`. Called once, at import of the backends."""
    ggml_log_set(_on_log, NULL)


def release_log():
    """Restore ggml's own log, before the interpreter exits."""
    ggml_log_set(NULL, NULL)


def last_error():
    """ggml's last error line, which is then cleared."""
    global _last_error
    line, _last_error = _last_error, ""
    return line


cdef str because():
    line = last_error()
    return f": {line}" if line else ""


cdef int ok(ggml_status status, str what) except -1:
    """Raise GgmlError unless `status` is success; OutOfMemoryError if a device has too little memory."""
    if status == GGML_STATUS_ALLOC_FAILED:
        raise OutOfMemoryError(f"{what}: a device has too little memory{because()}")
    if status != GGML_STATUS_SUCCESS:
        raise GgmlError(f"{what} failed (ggml status {<int>status}){because()}")
    return 0


cdef int not_null(const void* pointer, str what) except -1:
    """Raise GgmlError if `pointer` is NULL."""
    if pointer == NULL:
        raise GgmlError(f"{what} failed{because()}")
    return 0
