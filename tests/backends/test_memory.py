"""A device that runs out of memory while it computes: one request fails, the others and the model go on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

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


# A card that is too small for all layers.
SMALL = """
import json, sys
import engine
from engine.ggml.backend import devices

def params(**more):
    return engine.ModelParameters(devices=("CLBlast0",), context_size=256, parallel=2, n_threads=1, **more)

device = next(d for d in devices() if d.name == "CLBlast0")
try:
    engine.load(sys.argv[1], params(use_gpu=True))
    refused = None
except engine.OutOfMemoryError as error:
    refused = [str(error), error.__notes__[0], error.needed, error.free]
found = {"refused": refused, "after": device.free}
with engine.load(sys.argv[1], params(gpu_layers="auto")) as model:
    with model.start_session() as session:
        session.feed_prompt([5] * 200)
    found |= {"free": device.free, "placement": model.describe()["placement"], "cells": model.pool.n_cells}
print(json.dumps(found))
"""


def run(script: str, path: Path, memory: int) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        env={**os.environ, "GGSERVE_CLBLAST_MEMORY": str(memory)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_auto_fills_a_small_device_and_leaves_a_margin(tmp_path: Path) -> None:
    path, memory = tmp_path / "model.gguf", 12 << 20
    write(path, Shape("four layers", 4, 512, 8, 2, 1408, 1000), "q8_0")
    result = run(SMALL, path, memory)
    text, table, needed, free = result["refused"]
    assert needed > free == result["after"] == memory  # nothing was taken
    assert f"{needed} bytes" in text
    assert f"{free} bytes" in text
    fitting = int(text.partition("gpu_layers=")[2].split()[0])
    assert "CLBlast0" in table
    on_device = result["placement"].count("CLBlast0")
    assert 0 < on_device <= fitting < len(result["placement"])
    assert result["placement"][-on_device:] == ["CLBlast0"] * on_device
    # The margin is a tenth; another layer would not have fitted beside it.
    assert memory // 10 <= result["free"] < memory // 10 + (memory - result["free"]) // on_device


def test_only_the_request_that_needs_too_much_fails(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write(path, Shape("small", 2, 256, 4, 2, 704, 1000), "q8_0")
    result = run(SCRIPT, path, 64 << 20)
    assert result["total"] == 64 << 20
    assert result["alone"]["short"]["finish"] == "length"
    long = result["both"]["long"]
    assert (long["finish"], long["out_of_memory"], long["tokens"]) == ("error", True, [])
    assert "CLBlast0: cannot allocate" in long["error"]
    assert result["both"]["short"] == result["after"]["short"] == result["alone"]["short"]
    assert result["cells"] == 0
    assert result["after"]["long"]["finish"] == "length"
