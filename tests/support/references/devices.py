"""Models on other devices than the CPU: how they are loaded there, and what they answer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engine
from support.builders.golden import Golden

GREEDY = engine.InferenceParameters(temperature=0.0, max_tokens=24, ignore_eos=True)
# Another one for what is said of CLBlast, such as CUDA0; docs/acceleration.md.
DEVICE = os.environ.get("GGSERVE_TEST_DEVICE", "CLBlast0")


def params(
    where: str, request: pytest.FixtureRequest, layers: Any = "all", **more: Any
) -> engine.ModelParameters:
    """On `where`: CLBlast, RPC (a CPU) or RPC-CLBlast; the device is named, so that no other is taken.

    With 0 layers there it is only offered: to demand it would be a contradiction.
    """
    rpc = {"RPC": "rpc_cpu", "RPC-CLBlast": "rpc_clblast"}.get(where)
    options = {"kv_type": "f32", "context_size": 256, "n_threads": 1, "parallel": 1} | more
    if where == "cpu":
        return engine.ModelParameters(use_gpu=False, **options)
    options |= {"use_gpu": layers != 0 or "auto", "gpu_layers": layers}
    if rpc is None:
        return engine.ModelParameters(devices=(DEVICE,), **options)
    address = request.getfixturevalue(rpc)
    return engine.ModelParameters(devices=(rpc_device(address),), rpc=(address,), **options)


def rpc_device(address: str) -> str:
    """ggml numbers workers' devices in the order in which they were added."""
    from engine.ggml.backend import add_rpc_server, devices
    from engine.model import rpc

    rpc.handshake(address)
    add_rpc_server(address)
    return next(d.name for d in devices() if d.description == address)


def run(
    path: Path, ref: Golden, params: engine.ModelParameters, n_splits: int | None = 1
) -> tuple[np.ndarray, list[int], list[str]]:
    """The logits after the prompt, the greedy tokens, and where the layers were.

    n_splits: parts of the graph if all layers are on one device; 1: only token ids, positions and masks go
    there, and logits back.
    """
    with engine.load(path, params) as model:
        with model.start_session(engine.InferenceSessionConfig(n_batch=64, cache_prompt=False)) as session:
            session.feed_prompt(ref.prompt)
            logits = session.last_logits
            tokens = [token.id for token in session.infer(GREEDY)]
        placement = model.describe()["placement"]
        whole = "CPU" not in placement and len(set(placement)) == 1
        if whole and n_splits is not None and model.hp.recurrence is None:  # states are computed on the CPU
            assert model.sched.n_splits == n_splits
        return logits, tokens, placement
