"""Converts a PEFT folder (adapter_config.json, adapter_model.safetensors) to a GGUF adapter.

The file is laid out as llama.cpp's converter does it. What the base model's converter does to the rows of a
matrix is done to those of B.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np
from gguf.utility import SafetensorsLocal

from engine.convert.converter import OutputTensor, encoded, module_of
from engine.convert.folder import read_json
from engine.convert.huggingface import converter_for
from engine.convert.huggingface.base import Array, Converter
from engine.convert.tensors import SourceTensor
from engine.errors import ConfigError, ModelError, UnsupportedModelError
from engine.gguf.output import replacing, write_data
from engine.types import ProgressCallback

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
TYPES = ("f32", "f16", "bf16")
_PART = re.compile(r"^(?:base_model\.model\.)?(.+)\.lora_(?:embedding_)?([AB])(?:\.weight)?$")
# Settings that change what an adapter computes, and the values that are implemented.
_SUPPORTED: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none", None),
    "use_dora": (False, None),
    "lora_bias": (False, None),
    "use_qalora": (False, None),
    "alora_invocation_tokens": (None, []),
    "invocation_string": (None, ""),
    "modules_to_save": (None, []),
    "target_parameters": (None, []),
    "trainable_token_indices": (None, [], {}),
    "layer_replication": (None, []),
    "use_bdlora": (False, None),
    "kasa_config": (None,),
    "monteclora_config": (None,),
    # Others (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA) begin with another base model than the published one.
    "init_lora_weights": (True, False, "gaussian", "orthogonal", "eva", None),
}


class _Module(NamedTuple):
    """An adapted module. name: of its weight in the base model's checkpoint, or as PEFT calls it."""

    name: str
    a: SourceTensor
    b: SourceTensor


def convert(
    folder: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    base: str | os.PathLike[str] | None = None,
    type: str = "f32",
    force: bool = False,
    progress: ProgressCallback | None = None,
) -> list[str]:
    """Write `target`; returns remarks about it.

    base: folder of the base model, of which only config.json is read; None: the one that the adapter names,
    if it is on this machine. type: one of TYPES. Raises ConfigError for bad arguments, ModelError for a
    damaged folder, UnsupportedModelError for an adapter or a base model of an unsupported kind. The file
    appears whole or not at all.
    """
    if type not in TYPES:
        raise ConfigError(f"--type {type}: an adapter is one of {', '.join(TYPES)}")
    source, kind = Path(folder), gguf.GGMLQuantizationType[type.upper()]
    settings = read_json(source, CONFIG, False)
    for key, values in _SUPPORTED.items():
        if settings.get(key, values[-1]) not in values:
            raise UnsupportedModelError(f"{source / CONFIG}: {key} {settings[key]!r} is not supported")
    config, model_class = _base_config(source, settings, base)
    converter = converter_for(model_class, config)
    config = converter.config_defaults | config
    alpha = _number(source, settings, "lora_alpha")
    tensors: list[tuple[OutputTensor, Array]] = []
    for module in _modules(source):
        for name, a, b in _converted(source, module, converter, config):
            scale = _scaling(source, settings, module.name, b.shape[-1])
            b = b * np.float32(scale * b.shape[-1] / alpha) if alpha else b * np.float32(0)
            for end, x in (("a", a), ("b", b)):
                if not np.isfinite(x).all():
                    raise ModelError(f"{source}: {module.name} has values that are not finite")
                tensors.append((OutputTensor(f"{name}.lora_{end}", x.shape, kind), x))
    names = [tensor.name for tensor, _ in tensors]
    if len(set(names)) < len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise ModelError(f"{source}: two tensors become {double}")
    with (
        replacing(Path(target), force) as part,
        closing(gguf.GGUFWriter(str(part), converter.architecture)) as writer,
    ):
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
        writer.add_name(source.resolve().name)
        for tensor, _ in tensors:
            writer.add_tensor_info(
                tensor.name, tensor.shape, np.dtype(np.float32), tensor.nbytes, tensor.type
            )
        data = ((tensor, encoded(np.ascontiguousarray(x), kind)) for tensor, x in tensors)
        write_data(writer, data, sum(tensor.nbytes for tensor, _ in tensors), progress)
    return []


def _base_config(
    source: Path, settings: dict[str, Any], base: str | os.PathLike[str] | None
) -> tuple[dict[str, Any], str]:
    """config.json of the base model, and its class."""
    named = settings.get("base_model_name_or_path")
    folder = Path(base) if base is not None else Path(named) if isinstance(named, str) and named else None
    if folder is None or (base is None and not (folder / "config.json").is_file()):
        raise ConfigError(
            f"{source / CONFIG} names the base model {str(named)[:200]!r}, which is not a folder here; give "
            "its folder with --base (only config.json is read)"
        )
    config = read_json(folder, "config.json", False)
    classes = config.get("architectures")
    if not (isinstance(classes, list) and classes and isinstance(classes[0], str)):
        raise ModelError(f"{folder / 'config.json'} has no `architectures`")
    text = config.get("text_config")
    return (config | text if isinstance(text, dict) else config), classes[0]


def _modules(source: Path) -> Iterator[_Module]:
    """The adapted modules of the folder, in the order of its file."""
    path = source / TENSORS
    try:
        stored = SafetensorsLocal(path).tensors
    except FileNotFoundError as error:
        pickled = (source / "adapter_model.bin").exists()
        more = "; adapter_model.bin can run code when read: save it with safetensors" if pickled else ""
        raise ModelError(f"{path} is missing{more}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is damaged: {error}") from error
    parts: dict[str, dict[str, SourceTensor]] = {}
    for name, tensor in stored.items():
        if name.endswith(".base_layer.weight"):  # PEFT saves the base model's own embeddings along
            continue
        match = _PART.match(name)
        if match is None:
            raise UnsupportedModelError(
                f"{path}: tensor {name} is not a part of a low-rank product (lora_A, lora_B)"
            )
        part = SourceTensor(name, tensor)
        part.check()
        parts.setdefault(match[1], {})[match[2]] = part
    if not parts:
        raise ModelError(f"{path} has no tensors")
    for name, both in parts.items():
        if set(both) != {"A", "B"}:
            raise ModelError(f"{path}: of {name} there is lora_{next(iter(both))} alone")
        yield _Module(name, both["A"], both["B"])


def _converted(
    source: Path, module: _Module, converter: type[Converter], config: dict[str, Any]
) -> Iterator[tuple[str, Array, Array]]:
    """(name of the matrix, A, B) of what a module becomes, in numpy's order."""
    known = module_of(f"{module.name}.weight", converter)
    if known is None:
        raise UnsupportedModelError(f"{source}: {module.name} is not part of {converter.architecture} models")
    if known.expert >= 0:
        raise UnsupportedModelError(f"{source}: {module.name}: adapters of single experts are not supported")
    a, b = module.a.read(), module.b.read()
    if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1]:
        raise ModelError(
            f"{source}: {module.name}: A {list(a.shape)} and B {list(b.shape)} do not fit together"
        )
    name = known.gguf_name
    if name == "token_embd.weight":
        yield name, a.T, b
        return
    n_out, n_in, rank = b.shape[0], a.shape[1], b.shape[1]

    # The converter may move the rows of a matrix. Its columns must stay, or A would have to be changed.
    def moved(values: Array, shape: tuple[int, int]) -> list[tuple[str, Array]]:
        x = np.broadcast_to(values, shape)
        return list(converter.convert_tensor(name, x, config))

    try:
        rows = np.arange(n_out, dtype=np.float32)[:, None]
        by_column = moved(np.arange(n_in, dtype=np.float32)[None], (n_out, n_in))
        by_row, of_b = moved(rows, (n_out, n_in)), moved(rows, (n_out, rank))
        outputs = list(converter.convert_tensor(name, b, config))
    except (ValueError, IndexError) as error:
        raise ModelError(f"{source}: {module.name} of shape [{n_out}, {n_in}]: {error}") from error
    for (_, columns), (_, ours), (_, theirs) in zip(by_column, of_b, by_row, strict=True):
        if (
            columns.shape[1:] != (n_in,)
            or (columns != np.arange(n_in)).any()
            or ours.shape[1:] != (rank,)
            or (ours[:, 0] != theirs[:, 0]).any()
        ):
            raise UnsupportedModelError(
                f"{source}: {module.name}: {converter.architecture} models store this matrix in another "
                "order of columns; its adapters are not supported"
            )
    for output, x in outputs:
        yield output, a, x


def _scaling(source: Path, settings: dict[str, Any], module: str, rank: int) -> float:
    """What PEFT multiplies B A by."""
    alpha = _number(source, settings, "lora_alpha")
    patterns = settings.get("alpha_pattern") or {}
    if not isinstance(patterns, dict):
        raise ModelError(f"{source / CONFIG}: alpha_pattern is not an object")
    for pattern, value in patterns.items():
        try:
            matches = re.match(rf"(.*\.)?({pattern})$", module)
        except re.error as error:
            raise ModelError(f"{source / CONFIG}: alpha_pattern {pattern!r}: {error}") from error
        if matches:
            alpha = _number(source, {"alpha_pattern": value}, "alpha_pattern")
            break
    return alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)


def _number(source: Path, settings: dict[str, Any], key: str) -> float:
    value = settings.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 1e6:
        raise ModelError(f"{source / CONFIG}: {key} is {str(value)[:100]}; it must be a number up to 1e6")
    return float(value)
