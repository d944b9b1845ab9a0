"""Threads that wait for each other leave the core to the one that they wait for."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from server.models.bundled import bundled_model

PROGRAM = """
import os, sys, time
import engine
n_threads = int(sys.argv[2])
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
with engine.load(sys.argv[1], engine.ModelParameters(n_threads=n_threads, context_size=256)) as model:
    session = model.start_session(engine.InferenceSessionConfig())
    session.feed_prompt("Once upon a time")
    before = time.process_time()
    for _ in session.infer(engine.InferenceParameters(temperature=0.0, max_tokens=16)):
        pass
    print(time.process_time() - before)
"""


def processor_seconds(n_threads: int) -> float:
    """Processor time of 16 tokens on one core."""
    command = [sys.executable, "-c", PROGRAM, str(bundled_model()), str(n_threads)]
    done = subprocess.run(command, text=True, capture_output=True, timeout=200, check=True)
    return float(done.stdout)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no processor affinity")
def test_decode_with_more_threads_than_cores_spends_its_time_on_the_model() -> None:
    """Waiting took a time slice of the system's at each barrier: 50 times the work of the model and more."""
    assert processor_seconds(2) < 10 * processor_seconds(1) + 0.5
