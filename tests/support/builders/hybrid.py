"""A random model of 24 layers, three of each four with a recurrent state."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from engine.quantize.quantizer import quantize_file
from support.builders.golden import TinyModel, golden

N_LAYER, FEED_FORWARD = 24, 64


def hybrid_model(path: Path, context_length: int = 4096) -> Path:
    """Qwen 3.5's layers of the golden file, again and again with other numbers.

    As Q8_0 with rows of whole blocks, so that a text is the same to the bit in any batch.
    """
    source = TinyModel.read(golden("qwen35").path)
    model = TinyModel(dict(source.keys))
    model.set("block_count", N_LAYER)
    model.set("context_length", context_length)
    model.set("feed_forward_length", FEED_FORWARD)
    kinds = [i % 4 != 3 for i in range(N_LAYER)]
    model.set("attention.recurrent_layers", kinds)
    rng = np.random.default_rng(5)
    for name, x in source.tensors.items():
        layer = re.match(r"blk\.(\d+)\.", name)
        if layer is None:
            model.tensors[name] = x
            continue
        if re.search("ffn_(gate|up|down)", name):  # from 48
            x = np.take(x, np.arange(FEED_FORWARD), axis=int("down" in name), mode="wrap")
        for i, recurrent in enumerate(kinds):
            if int(layer[1]) == (0 if recurrent else 1):
                noise = rng.uniform(0.8, 1.2, x.shape).astype(np.float32)
                model.tensors[name.replace(layer[0], f"blk.{i}.", 1)] = x * noise
    whole = model.write(path.with_suffix(".f32"))
    quantize_file(whole, path, "Q8_0")
    whole.unlink()
    return path
