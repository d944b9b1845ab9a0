"""Converts a Hugging Face folder to a GGUF file, one tensor at a time.

What concerns one architecture (tensor names, keys, orders of rows) is in `engine.convert.huggingface`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import gguf
import numpy as np

from engine.convert import vocabulary
from engine.convert.folder import Folder
from engine.convert.huggingface import converter_for, keys
from engine.convert.huggingface.base import Array, Config, Converter
from engine.convert.output import add_key
from engine.convert.sentence_transformers import EmbeddingSettings, dense_tensors, embedding_settings
from engine.convert.tensors import MXFP4Tensor, SourceTensor, Weight
from engine.errors import ModelError, UnsupportedModelError
from engine.ggml.quantize import quantize
from engine.gguf import GGMLType
from engine.gguf.output import replacing, write_data
from engine.host import physical_cores
from engine.hparams import POOLING
from engine.quantize.mixes import MIXES, ModelTraits
from engine.quantize.quantizer import mixture_name, type_names, types_without_importance
from engine.types import ProgressCallback

TYPES = tuple(name.lower() for name in type_names())
_CHUNK = 1 << 22  # elements that a thread quantizes at a time

# Buffers that are computed, not learned; older versions of transformers saved them beside the weights.
_BUFFERS = re.compile(
    r"(^|\.)(position_ids|token_type_ids|masked_bias|attention_mask|causal_mask|bias_mask)$"
    r"|(^|\.)(attn|attention|self_attn)\.(bias|mask)$"
    r"|(^|\.)(original_)?inv_freq$|(^|\.)(cos|sin)_cached$|rotary_emb\."
    r"|\.(input|activation|output|k|v|kv)_scale$"  # of activations, in FP8 checkpoints
)
# Prefixes that the same module has in one checkpoint and lacks in another.
_PREFIXES = ("model.", "transformer.", "bert.", "roberta.", "gpt_neox.", "backbone.")
_WRAPPERS = ("module.", "_orig_mod.", "base_model.model.")  # of DataParallel, torch.compile and PEFT


class OutputTensor(NamedTuple):
    """One tensor of the GGUF file. shape: numpy's order."""

    name: str
    shape: tuple[int, ...]
    type: gguf.GGMLQuantizationType

    @property
    def nbytes(self) -> int:
        block, size = gguf.GGML_QUANT_SIZES[self.type]
        return int(np.prod(self.shape)) // block * size


@dataclass(frozen=True)
class TensorGroup:
    """One tensor of the folder, or those of a layer's experts (or heads), which are stacked."""

    name: str  # in GGUF, before `Converter.convert_tensor`
    parts: list[Weight]

    @property
    def is_packed(self) -> bool:
        """Whether the folder has it as MXFP4 blocks."""
        return all(isinstance(part, MXFP4Tensor) for part in self.parts)

    def converted(
        self, converter: type[Converter], folder: Folder, arrays: list[Array]
    ) -> Iterator[tuple[str, Array]]:
        """The GGUF tensors that result, given one array for each part."""
        x = arrays[0] if len(arrays) == 1 else np.stack(arrays)
        yield from converter.convert_tensor(self.name, x, folder.config)


def convert(
    folder: str | os.PathLike[str],
    target: str | os.PathLike[str],
    type: str = "f16",
    *,
    pre: str | None = None,
    force: bool = False,
    split_max_size: int = 0,
    progress: ProgressCallback | None = None,
) -> list[str]:
    """Write `target`; returns remarks about it (matrices that could not get the requested type).

    Matrices become `type` (one of TYPES), exactly as if an f32 file were quantized; vectors stay f32.
    pre: name of the pre-tokenizer, where it is not recognised. Raises ConfigError for bad arguments,
    ModelError for a damaged or incomplete folder, UnsupportedModelError for an unsupported model class,
    tokenizer or setting. split_max_size: bytes of tensors in each part of a split model; 0: one file. All
    files appear whole or not at all.
    """
    mix = mixture_name(type)
    target = Path(target)
    source = Folder(Path(folder))
    converter = converter_for(source.model_class, source.config)
    source.config = converter.config_defaults | source.config
    for name, supported in converter.supported_settings.items():
        keys.only(source.config, name, *supported)
    embedding = embedding_settings(source.path)
    source.tensors |= dense_tensors(embedding.dense, converter.dense_modules)
    groups, remarks = _groups(converter, source)
    outputs, plan_remarks = _plan(converter, source, groups, mix)
    remarks += plan_remarks
    with (
        replacing(target, force) as part,
        closing(gguf.GGUFWriter(str(part), converter.architecture, split_max_size=split_max_size)) as writer,
    ):
        writer.add_name(source.name)
        writer.add_file_type(MIXES[mix][0])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        for key, value in (
            converter.convert_keys(source.config) | _embedding_keys(source, embedding)
        ).items():
            add_key(writer, f"{converter.architecture}.{key}", value)
        for key, value in _layer_keys(converter, source).items():
            add_key(writer, key, value)
        for key, value in _sampling_keys(source).items():
            add_key(writer, f"general.sampling.{key}", value)
        vocabulary.write(writer, source, pre)
        for tensor in outputs:
            writer.add_tensor_info(
                tensor.name, tensor.shape, np.dtype(np.float32), tensor.nbytes, tensor.type
            )
        total = sum(tensor.nbytes for tensor in outputs)
        write_data(writer, _encoded_tensors(converter, source, groups, outputs), total, progress)
    return remarks


def _groups(converter: type[Converter], folder: Folder) -> tuple[list[TensorGroup], list[str]]:
    """The folder's tensors by the GGUF tensor they become, in the order of the file, and remarks.

    Raises UnsupportedModelError for weights that no GGUF tensor stands for: answers would be wrong.
    """
    parts_of: dict[str, list[tuple[int, Weight]]] = {}
    unknown: list[str] = []
    buffers: list[str] = []
    tied = bool(folder.config.get("tie_word_embeddings", converter.tied_by_default))
    for original, tensor in folder.tensors.items():
        name = re.sub(r"^language_model\.(?=model\.|lm_head)|(?<=^model\.)language_model\.", "", original)
        if converter.predicts_more and _is_beyond(name, folder.config):
            continue
        module = module_of(name, converter)
        if module is None:
            if re.sub(r"(?<=\.)\d+(?=\.)", "{i}", name, count=1) in converter.layer_keys:
                continue
            if _BUFFERS.search(name) or name.startswith(converter.ignored or ("/",)):
                continue
            is_weight = not isinstance(tensor, SourceTensor) or tensor.is_float
            (unknown if is_weight else buffers).append(original)
        elif not (tied and module.target == "output"):
            tensor.check()
            parts_of.setdefault(module.gguf_name, []).append((module.expert, tensor))
    if unknown:
        raise UnsupportedModelError(
            f"{folder.path}: {len(unknown)} tensors are not part of {folder.model_class} "
            f"({', '.join(unknown[:3])}{', …' if len(unknown) > 3 else ''})"
        )
    for name in folder.missing:
        module = module_of(name, converter)
        if module is not None and not (tied and module.target == "output"):
            raise ModelError(f"{folder.path}: tensor {name} is in the index but not in its file")
    for name, parts in parts_of.items():
        indices = sorted(index for index, _ in parts)
        if indices not in ([-1], list(range(len(parts)))):
            raise ModelError(f"{folder.path}: parts of {name} are missing (present: {indices})")
    names = sorted(
        parts_of, key=lambda name: [int(s) if s.isdigit() else s for s in re.split(r"(\d+)", name)]
    )
    groups = [
        TensorGroup(name, [t for _, t in sorted(parts_of[name], key=lambda part: part[0])]) for name in names
    ]
    remarks = []
    if buffers:
        names = buffers[:4] + (["…"] if len(buffers) > 4 else [])
        remarks.append(f"{len(buffers)} integer tensors are not weights and were omitted: {', '.join(names)}")
    return groups, remarks


def _is_beyond(name: str, config: Config) -> bool:
    """Whether a tensor belongs to a layer behind the last of `num_hidden_layers`."""
    layer = re.match(r"(?:model\.)?layers\.(\d+)\.", name)
    return layer is not None and int(layer[1]) >= int(config.get("num_hidden_layers", 0))


class ModuleName(NamedTuple):
    """A recognised checkpoint tensor. target: as in `Converter.tensor_names`, `{i}` for the layer."""

    target: str
    gguf_name: str
    expert: int  # -1: there is one


def module_of(name: str, converter: type[Converter]) -> ModuleName | None:
    """The meaning of a tensor name, with or without the whole model's prefix; None if the converter does not
    have it.
    """
    for wrapper in _WRAPPERS:
        name = name.removeprefix(wrapper)
    stem, _, end = name.rpartition(".")
    if end not in ("weight", "bias"):
        stem, end = name, "weight"
    numbers = [int(n) for n in re.findall(r"(?<=\.)\d+(?=\.|$)", f".{stem}")]
    pattern = re.sub(r"(?<=\.)\d+(?=\.|$)", "{i}", f".{stem}", count=1)
    pattern = re.sub(r"(?<=\.)\d+(?=\.|$)", "{e}", pattern, count=1)[1:]
    if len(numbers) == 1 and "{i}" in pattern:  # of the whole model, one of several to be stacked
        target = converter.tensor_names.get(pattern.replace("{i}", "{e}"))
        if target is not None:
            return ModuleName(target, f"{target}.{end}", numbers[0])
    spellings = [pattern]
    spellings += [pattern.removeprefix(prefix) for prefix in _PREFIXES if pattern.startswith(prefix)]
    spellings += [prefix + pattern for prefix in _PREFIXES]
    target = next((converter.tensor_names[s] for s in spellings if s in converter.tensor_names), None)
    if target is None:
        return None
    gguf_name = target.replace("{i}", f"{numbers[0]}" if "{i}" in pattern else "")
    if not target.endswith((".weight", ".bias", ".scale")):
        gguf_name += f".{end}"
    return ModuleName(target, gguf_name, numbers[1] if "{e}" in pattern else -1)


def _plan(
    converter: type[Converter], folder: Folder, groups: list[TensorGroup], mix: str
) -> tuple[list[OutputTensor], list[str]]:
    """Names, shapes and types of the output, and remarks; shapes are learned by converting empty arrays."""
    shapes: list[tuple[str, tuple[int, ...]]] = []  # numpy's order
    packed: list[str] = []
    for group in groups:
        zero = np.uint8(0) if group.is_packed else np.float32(0)
        empty = [np.broadcast_to(zero, part.shape) for part in group.parts]
        if len({part.shape for part in group.parts}) > 1:
            raise ModelError(f"{folder.path}: the parts of {group.name} have different shapes")
        try:
            converted = list(group.converted(converter, folder, empty))
        except (ValueError, IndexError) as error:
            shape = list(group.parts[0].shape)
            raise ModelError(f"{folder.path}: {group.name} of shape {shape}: {error}") from error
        for name, x in converted:
            if group.is_packed:
                packed.append(name)
                shapes.append((name, (*x.shape[:-1], x.shape[-1] // 17 * 32)))
            else:
                shapes.append((name, x.shape))
    shapes += [(name, x.shape) for name, x in converter.extra_tensors(folder.config).items()]
    names = [name for name, _ in shapes]
    if len(set(names)) < len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise ModelError(f"{folder.path}: two tensors become {double}")
    hp = converter.convert_keys(folder.config)
    n_head = hp["attention.head_count"]
    n_kv = hp.get("attention.head_count_kv", n_head)
    n_kv = max(n_kv) if isinstance(n_kv, list) else n_kv  # of layers with attention
    traits = ModelTraits(
        n_layer=hp["block_count"],
        n_gqa=max(n_head // max(n_kv, 1), 1),
        n_expert=hp.get("expert_count", 0),
        tied="output.weight" not in names,
        has_importance=False,
        one_norm=converter.architecture == "falcon",
    )
    types, remarks = types_without_importance({name: shape[::-1] for name, shape in shapes}, mix, traits)
    if packed:
        types |= dict.fromkeys(packed, "mxfp4")
        remarks.append(f"{len(packed)} tensors stay mxfp4, as in the folder ({packed[0]} …)")
    return [
        OutputTensor(name, shape, gguf.GGMLQuantizationType[types[name].upper()]) for name, shape in shapes
    ], remarks


def _encoded_tensors(
    converter: type[Converter], folder: Folder, groups: list[TensorGroup], outputs: list[OutputTensor]
) -> Iterator[tuple[OutputTensor, Array]]:
    """Each output tensor with its data in its type, in the order of `outputs`."""
    by_name = {tensor.name: tensor for tensor in outputs}
    with ThreadPoolExecutor(physical_cores()) as pool:
        for group in groups:
            arrays = [part.read() for part in group.parts]
            for name, x in group.converted(converter, folder, arrays):
                if not np.isfinite(x).all():
                    raise ModelError(f"{folder.path}: {group.name} has values that are not finite")
                yield by_name[name], encoded(np.ascontiguousarray(x), by_name[name].type, pool)
    for name, x in converter.extra_tensors(folder.config).items():
        yield by_name[name], x.astype(np.float32)


def encoded(x: Array, kind: gguf.GGMLQuantizationType, pool: ThreadPoolExecutor | None = None) -> Array:
    """An array in the type of its tensor."""
    if x.dtype == np.uint8:
        return x  # MXFP4 blocks already
    x = x.astype(np.float32, copy=False)
    if kind == gguf.GGMLQuantizationType.F32:
        return x
    if kind == gguf.GGMLQuantizationType.F16:
        half = x.astype(np.float16)
        if not np.isfinite(half).all():
            raise ModelError("a weight is too large for f16; convert to bf16 or f32")
        return half
    name, rows = GGMLType[kind.name].ggml_name, x.reshape(-1, x.shape[-1])
    n_rows = max(_CHUNK // rows.shape[1], 1)
    begins = range(0, len(rows), n_rows)
    pieces = (pool.map if pool else map)(lambda begin: quantize(name, rows[begin : begin + n_rows]), begins)
    return np.concatenate(list(pieces))


def _layer_keys(converter: type[Converter], folder: Folder) -> dict[str, list[float]]:
    """Numeric arrays that each layer has as a tensor."""
    values: dict[str, list[float]] = {}
    for name, key in converter.layer_keys.items():
        values[key] = []
        for i in range(int(folder.config["num_hidden_layers"])):
            tensor = folder.tensors.get(name.format(i=i))
            if tensor is None:
                raise ModelError(f"{folder.path}: tensor {name.format(i=i)} is missing")
            tensor.check()
            values[key].append(float(tensor.read().reshape(-1)[0]))
    return values


def _sampling_keys(folder: Folder) -> dict[str, int | float]:
    """The recommendations in generation_config.json, written as by llama.cpp's converter."""
    config = folder.json("generation_config.json", optional=True)
    values: dict[str, int | float] = {}
    for key, name in (
        ("top_k", "top_k"),
        ("top_p", "top_p"),
        ("min_p", "min_p"),
        ("temp", "temperature"),
        ("penalty_repeat", "repetition_penalty"),
    ):
        value = config.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            values[key] = int(value) if key == "top_k" else float(value)
    return values


def _embedding_keys(folder: Folder, settings: EmbeddingSettings) -> dict[str, int | bool]:
    """The keys of an embedding model that sentence-transformers' files determine."""
    values: dict[str, int | bool] = {}
    if settings.pooling is not None:
        values["pooling_type"] = POOLING.index(settings.pooling)
    if settings.normalize is False:  # vectors are normalised by default
        values["pooling_normalize"] = False
    for name, tensor in folder.tensors.items():
        if name.endswith(".linear.weight") and settings.dense:
            n_out, n_in = tensor.shape
            name = name.partition(".")[0]
            values |= {f"{name}_feat_in": n_in, f"{name}_feat_out": n_out}
    return values
