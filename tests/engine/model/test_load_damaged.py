"""Damaged model files, loaded and run for real: an EngineError or a working model, never a crash.

The loads happen in a child process, so that a crash is a failure that names the damage.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import engine
from engine.gguf import GGUFFile
from server.models.bundled import bundled_model
from support.quick import every

N_DAMAGED = 400

CHILD = """
import random, sys
from pathlib import Path
import engine
from engine.scheduler.batch import BatchItem
from array import array
from support.builders.mutations import Workfile, mutations
from server.models.bundled import bundled_model

data = bundled_model().read_bytes()
work = Workfile(Path(sys.argv[1]), data)
outcomes = {"refused": 0, "ran": 0}
params = engine.ModelParameters(n_threads=1, kv_cells=64, context_size=64, max_batch_tokens=16, parallel=1)
for mutation in mutations(data, int(sys.argv[2]), seed=int(sys.argv[3])):
    print(mutation, flush=True)
    with work.damaged(mutation) as path:
        try:
            with engine.load(path, params) as model:
                ids = [i % model.hp.n_vocab for i in (1, 300, 2000)]
                model.runner.forward([BatchItem(ids, array("i", [5, 6, 7]), 0, True)])
                model.tokenizer.encode("Once upon a time")
            outcomes["ran"] += 1
        except engine.EngineError as error:
            assert len(str(error).splitlines()) == 1, error
            outcomes["refused"] += 1
print("done", outcomes["refused"], outcomes["ran"])
"""


@pytest.mark.parametrize("seed", every(2, [1, 2]))
def test_damaged_files_never_crash(tmp_path: Path, seed: int) -> None:
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path / "damaged.gguf"), str(N_DAMAGED // 2), str(seed)],
        capture_output=True, text=True, timeout=300, check=False, cwd=root,
        env={"PYTHONPATH": f"{root}:{root / 'tests'}", "PATH": ""},
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert done.returncode == 0, f"died at: {lines[-1] if lines else 'start'}\n{done.stderr[-2000:]}"
    word, refused, ran = lines[-1].split()
    assert word == "done"
    assert int(refused) + int(ran) == N_DAMAGED // 2
    assert int(refused) > 20
    assert int(ran) > 0


def test_unknown_architecture_is_refused_with_the_supported_ones(tmp_path: Path) -> None:
    data = bundled_model().read_bytes().replace(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0lxyma", 1)
    (tmp_path / "m.gguf").write_bytes(data)
    with GGUFFile.open(tmp_path / "m.gguf") as gguf:
        assert gguf.arch == "lxyma"
    with pytest.raises(engine.UnsupportedModelError, match=r"'lxyma'.*supported: .*llama.*CONTRIBUTING"):
        engine.load(tmp_path / "m.gguf")


def test_misnamed_tensor_is_refused(tmp_path: Path) -> None:
    data = bundled_model().read_bytes()
    (tmp_path / "m.gguf").write_bytes(data.replace(b"blk.1.attn_q.weight", b"blk.1.attn_Q.weight", 1))
    with pytest.raises(engine.ModelError, match=r"blk\.1\.attn_q\.weight is missing"):
        engine.load(tmp_path / "m.gguf")
    (tmp_path / "m.gguf").write_bytes(data.replace(b"blk.1.attn_q.weight", b"blk.1.attn_q.weighs", 1))
    with pytest.raises(engine.ModelError, match="missing"):
        engine.load(tmp_path / "m.gguf")


@pytest.mark.parametrize(
    ("params", "error", "text"),
    [
        ({"context_size": 1}, engine.ConfigError, "context_size is 1; it must be 2 to"),
        ({"context_size": 0}, engine.ConfigError, "context_size is 0"),
        ({"context_size": 1 << 31}, engine.ConfigError, "context_size is 2147483648"),
        ({"kv_cells": 1}, engine.ConfigError, "kv_cells is 1"),
        ({"kv_cells": 1 << 31}, engine.ConfigError, "kv_cells is 2147483648"),
        ({"max_batch_tokens": 0}, engine.ConfigError, "max_batch_tokens is 0"),
        ({"max_batch_tokens": 1 << 31}, engine.ConfigError, "max_batch_tokens is"),
        ({"parallel": 0}, engine.ConfigError, "parallel is 0"),
        ({"parallel": -1}, engine.ConfigError, "parallel is -1"),
        ({"n_threads": -1}, engine.ConfigError, "n_threads is -1"),
        ({"flash_attn": "yes"}, engine.ConfigError, "flash_attn is 'yes'; it must be auto, on or off"),
        ({"kv_type": "q9"}, engine.ConfigError, "q9.*q8_0"),
        ({"use_gpu": True}, engine.DeviceError, "no usable GPU"),
        ({"kv_type": "q8_0", "flash_attn": "off"}, engine.ConfigError, "q8_0 needs flash attention"),
        ({"kv_cells": 1 << 30}, engine.OutOfMemoryError, "CPU"),
        ({"rpc": ("127.0.0.1:9",)}, engine.DeviceError, "no worker at"),
        ({"devices": ("CUDA7",)}, engine.DeviceError, "CUDA7"),
    ],
)
def test_parameters_that_cannot_be_met_are_refused(params: dict, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        engine.load(bundled_model(), engine.ModelParameters(**params))
