"""`ggserve serve`: starts an engine process, then imports and runs `server.cli.serving`."""

from __future__ import annotations

import contextlib
import gc

from server.worker.supervision.process import StartedProcess


def run(arguments: list[str]) -> int:
    gc.disable()  # while modules are imported, which is no garbage: searching it takes a tenth of the time
    process = None
    try:
        if not {"-h", "--help"} & {*arguments}:
            with contextlib.suppress(OSError):  # the supervisor tries again and reports it
                process = StartedProcess.start()
        from server.cli import serving

        return serving.run(arguments, process)
    finally:
        gc.enable()
        if process is not None and not process.in_use:
            process.discard()
