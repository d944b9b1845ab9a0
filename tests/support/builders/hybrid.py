"""A random model of 24 layers, three of each four with a recurrent state."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from support.builders.golden import TinyModel, golden

N_LAYER = 24


def hybrid_model(path: Path, context_length: int = 4096) -> Path:
    """Qwen 3.5's layers of the golden file, again and again with other numbers."""
    source = TinyModel.read(golden("qwen35").path)
    model = TinyModel(dict(source.keys))
    model.set("block_count", N_LAYER)
    model.set("context_length", context_length)
    kinds = [i % 4 != 3 for i in range(N_LAYER)]
    model.set("attention.recurrent_layers", kinds)
    rng = np.random.default_rng(5)
    for name, x in source.tensors.items():
        layer = re.match(r"blk\.(\d+)\.", name)
        if layer is None:
            model.tensors[name] = x
            continue
        for i, recurrent in enumerate(kinds):
            if int(layer[1]) == (0 if recurrent else 1):
                noise = rng.uniform(0.8, 1.2, x.shape).astype(np.float32)
                model.tensors[name.replace(layer[0], f"blk.{i}.", 1)] = x * noise
    return model.write(path)
