"""A device that runs out of memory while it computes: one request fails, the others and the model go on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from bench.random_model import Shape, write

# In a process of its own, since the devices and what they may take are found once. The filler leaves too
# little for the scratch memory that only prompts of more than eight tokens need.
SCRIPT = """
import json, sys
import engine
from engine.ggml.backend import devices
from engine.ggml.tensor import Storage
from engine.types import InferenceParameters, Request

greedy = InferenceParameters(temperature=0.0, max_tokens=12, ignore_eos=True)

def run(scheduler, **prompts):
    for id, n in prompts.items():
        scheduler.submit(Request(id=id, prompt=list(range(5, 5 + n)), params=greedy, cache_prompt=False))
    found = {}
    while scheduler.has_work:
        for e in scheduler.step():
            one = found.setdefault(e.id, {"tokens": [], "finish": None})
            one["tokens"] += [t.id for t in e.tokens]
            if e.finish is not None:
                one |= {"finish": str(e.finish), "error": e.error, "out_of_memory": e.out_of_memory}
    return found

params = engine.ModelParameters(
    use_gpu=True, devices=("CLBlast0",), context_size=128, parallel=4, n_threads=1
)
with engine.load(sys.argv[1], params) as model:
    device = next(d for d in devices() if d.name == "CLBlast0")
    scheduler = model.scheduler()
    alone = run(scheduler, short=4)
    total = device.total
    filler = Storage(1)
    filler.new(0, ((device.free - 4096) // 4,), "filler")
    buffer = filler.allocate(device.buffer_types()[-1])
    both = run(scheduler, short=4, long=40)
    cells = scheduler.stats().cells_used
    buffer.close()
    after = run(scheduler, long=40, short=4)
print(json.dumps({"alone": alone, "both": both, "after": after, "cells": cells, "total": total}))
"""


def test_only_the_request_that_needs_too_much_fails(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write(path, Shape("small", 2, 256, 4, 2, 704, 1000), "q8_0")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path)],
        env={**os.environ, "GGSERVE_CLBLAST_MEMORY": str(64 << 20)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["total"] == 64 << 20
    assert found["alone"]["short"]["finish"] == "length"
    long = found["both"]["long"]
    assert (long["finish"], long["out_of_memory"], long["tokens"]) == ("error", True, [])
    assert "CLBlast0 has no room" in long["error"]
    assert found["both"]["short"] == found["after"]["short"] == found["alone"]["short"]
    assert found["cells"] == 0
    assert found["after"]["long"]["finish"] == "length"
