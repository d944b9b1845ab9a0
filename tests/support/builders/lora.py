"""LoRA adapters with random matrices, and models into which they are merged."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import gguf
import numpy as np

from support.builders.golden import Floats, TinyModel

Parts = dict[str, tuple[Floats, Floats]]  # by the name of the model's tensor, in numpy's order


def random_parts(model: TinyModel, names: Iterable[str], rank: int, seed: int) -> Parts:
    """A [.., rank, n_in] and B [.., n_out, rank] of these tensors; of the embedding A [vocabulary, rank]."""
    rng, parts = np.random.default_rng(seed), {}
    for name in names:
        *experts, n_out, n_in = model.tensors[name].shape
        a, b = (*experts, rank, n_in), (*experts, n_out, rank)
        if name == "token_embd.weight":
            a, b = (n_out, rank), (n_in, rank)
        scale = float(model.tensors[name].std())
        parts[name] = tuple(
            rng.normal(0, scale if i else 0.5, shape).astype(np.float32) for i, shape in enumerate((a, b))
        )
    return parts


def write_adapter(path: Path, arch: str, parts: Parts, alpha: float | None = None, type: str = "F32") -> Path:
    """As llama.cpp's convert_lora_to_gguf writes it."""
    writer = gguf.GGUFWriter(str(path), arch)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string("adapter.type", "lora")
    if alpha is not None:
        writer.add_float32("adapter.lora.alpha", alpha)
    for name, both in parts.items():
        for end, x in zip("ab", both, strict=True):
            kind = gguf.GGMLQuantizationType[type]
            writer.add_tensor(f"{name}.lora_{end}", gguf.quantize(x, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def merged(model: TinyModel, parts: Parts, scale: float) -> TinyModel:
    """The model with W + scale B A in place of W."""
    result = TinyModel(dict(model.keys), dict(model.tensors))
    for name, (a, b) in parts.items():
        product = a @ b.T if name == "token_embd.weight" else b @ a
        result.tensors[name] = (model.tensors[name] + np.float32(scale) * product).astype(np.float32)
    return result
