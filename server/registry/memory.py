"""The memory that a loaded model takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def memory_use(info: Mapping[str, Any]) -> tuple[int, int]:
    """Bytes of a model and of its draft model, and how many of them are on GPUs.

    The share on GPUs is that of the layers there.
    """
    draft = info.get("draft_model")
    drafting = (0, 0) if draft is None else memory_use(draft)
    compute = info.get("compute_bytes", {})
    layers = info.get("weight_bytes", 0) + info.get("kv_bytes", 0) + info.get("state_bytes", 0)
    share = min(1.0, info.get("gpu_layers", 0) / max(1, info.get("n_layer", 1)))
    on_gpus = int(layers * share) + sum(n for device, n in compute.items() if device != "CPU")
    return layers + sum(compute.values()) + drafting[0], on_gpus + drafting[1]
