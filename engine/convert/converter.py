"""From a Hugging Face folder to a GGUF file, one tensor at a time.

What concerns an architecture (names, keys, orders of rows) stands in its file of `engine.architectures`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import gguf
import numpy as np

from engine import architectures
from engine.convert import keys, vocabulary
from engine.convert.folder import Blocks, Folder, Source
from engine.convert.output import add_key, replacing
from engine.errors import ModelError, UnsupportedModelError
from engine.ggml.quantize import quantize
from engine.model.host import physical_cores
from engine.nn.hparams import POOLING, Architecture
from engine.quantize.mixes import MIXES, Facts
from engine.quantize.quantizer import mixture_name, type_names, types_without_importance

TYPES = tuple(name.lower() for name in type_names())
Progress = Callable[[float, str], None]
_CHUNK = 1 << 22  # elements that a thread takes at a time

# What old checkpoints carry along, computed anyway.
_IGNORED = re.compile(r"rotary_emb\.inv_freq$|\.attn\.(masked_)?bias$|\.attention\.(masked_)?bias$")


class Made(NamedTuple):
    """One tensor of the output, from one source, or from the experts (or heads) of a layer stacked."""

    name: str
    shape: tuple[int, ...]  # numpy's order
    type: gguf.GGMLQuantizationType
    group: int  # which sources it is made of


def convert(
    folder: str | os.PathLike[str],
    target: str | os.PathLike[str],
    type: str = "f16",
    *,
    pre: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> list[str]:
    """Write `target`; returns remarks about it (matrices that could not get the type asked for).

    Matrices become `type` (one of TYPES), as quantizing an f32 file would make them; vectors stay f32.
    pre: name of the pre-tokenizer, where it is not recognised. Raises ConfigError for bad arguments,
    ModelError for a damaged or incomplete folder, UnsupportedModelError for a model class, tokenizer or
    setting that we do not know; the file appears whole or not at all.
    """
    mix = mixture_name(type)
    target = Path(target)
    source = Folder(Path(folder))
    cls = by_class(source.model_class)
    source.config = cls.config_defaults | source.config
    for name, supported in cls.settings.items():
        keys.only(source.config, name, *supported)
    groups = _groups(cls, source)
    made, remarks = _plan(cls, source, groups, mix)
    with replacing(target, force) as part, closing(gguf.GGUFWriter(str(part), cls.name)) as writer:
        _write_keys(writer, cls, source, mix, pre)
        for m in made:
            writer.add_tensor_info(m.name, m.shape, np.dtype(np.float32), _nbytes(m), m.type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        _write_tensors(writer, cls, source, groups, made, progress or (lambda fraction, text: None))
    return remarks


def by_class(name: str) -> type[Architecture]:
    """The architecture that a class of transformers becomes."""
    known = {
        hf: architectures.get(arch)
        for arch in architectures.names()
        for hf in architectures.get(arch).huggingface
    }
    if name not in known:
        raise UnsupportedModelError(
            f"config.json says {name}, which is not supported (supported: {', '.join(sorted(known))}); "
            "CONTRIBUTING.md has the checklist for adding an architecture"
        )
    return known[name]


def _groups(cls: type[Architecture], source: Folder) -> list[tuple[str, list[Source | Blocks]]]:
    """(name in the output, sources in order): several where experts or heads are stacked."""
    found: dict[str, list[tuple[int, Source | Blocks]]] = {}
    unknown = []
    tied = bool(source.config.get("tie_word_embeddings", cls.tied_by_default))
    for original, tensor in source.tensors.items():
        name = re.sub(r"^language_model\.(?=model\.|lm_head)|(?<=^model\.)language_model\.", "", original)
        stem, _, end = name.rpartition(".")
        if end not in ("weight", "bias"):
            stem, end = name, "weight"
        numbers = [int(n) for n in re.findall(r"(?<=\.)\d+(?=\.|$)", stem)]
        pattern = re.sub(r"(?<=\.)\d+(?=\.|$)", "{i}", stem, count=1)
        pattern = re.sub(r"(?<=\.)\d+(?=\.|$)", "{e}", pattern, count=1)
        known = cls.names.get(pattern)
        if known is None:
            if not _IGNORED.search(name) and not name.startswith(cls.unused or ("/",)):
                unknown.append(name)
        elif not (tied and known == "output"):
            layer = f"{numbers[0]}" if "{i}" in pattern else ""
            place = numbers[1] if "{e}" in pattern else -1
            end = "" if known.endswith((".weight", ".bias")) else f".{end}"
            found.setdefault(known.replace("{i}", layer) + end, []).append((place, tensor))
    if unknown:
        raise UnsupportedModelError(
            f"{source.path}: {len(unknown)} tensors are not part of {source.model_class} as we know it "
            f"({', '.join(unknown[:3])}…)"
        )
    for name, items in found.items():
        places = sorted(place for place, _ in items)
        if places not in ([-1], list(range(len(items)))):
            raise ModelError(f"{source.path}: parts of {name} are missing (there are {places})")
    order = sorted(found, key=lambda name: [int(s) if s.isdigit() else s for s in re.split(r"(\d+)", name)])
    return [(name, [t for _, t in sorted(found[name], key=lambda item: item[0])]) for name in order]


def _results(
    cls: type[Architecture], source: Folder, name: str, arrays: list[np.ndarray], stacked: bool
) -> Iterator[tuple[str, np.ndarray]]:
    x = arrays[0] if not stacked else np.stack(arrays)
    yield from cls.convert_tensor(name, x, source.config)


def _plan(
    cls: type[Architecture], source: Folder, groups: list[tuple[str, list[Source | Blocks]]], mix: str
) -> tuple[list[Made], list[str]]:
    """Names, shapes and types of the output, found by a rehearsal with arrays of no content."""
    found: list[tuple[str, tuple[int, ...], int]] = []
    packed: list[str] = []
    for group, (name, sources) in enumerate(groups):
        kinds = {type(s) for s in sources}
        zero = np.uint8(0) if kinds == {Blocks} else np.float32(0)
        empty = [np.broadcast_to(zero, s.shape) for s in sources]
        if len({s.shape for s in sources}) > 1:
            raise ModelError(f"{source.path}: the parts of {name} have different shapes")
        try:
            results = list(_results(cls, source, name, empty, len(sources) > 1))
        except (ValueError, IndexError) as error:
            raise ModelError(f"{source.path}: {name} of shape {list(sources[0].shape)}: {error}") from error
        for out, x in results:
            shape = x.shape
            if kinds == {Blocks}:
                packed.append(out)
                shape = (*shape[:-1], shape[-1] // 17 * 32)
            found.append((out, shape, group))
    found += [(name, x.shape, -1) for name, x in cls.extra_tensors(source.config).items()]
    names = [name for name, _, _ in found]
    if len(set(names)) < len(names):
        raise ModelError(f"{source.path}: two tensors become {next(n for n in names if names.count(n) > 1)}")
    hp = cls.convert_keys(source.config)
    n_head = hp["attention.head_count"]
    facts = Facts(
        n_layer=hp["block_count"],
        n_gqa=max(n_head // max(hp.get("attention.head_count_kv", n_head), 1), 1),
        n_expert=hp.get("expert_count", 0),
        tied="output.weight" not in names,
        has_importance=False,
        one_norm=cls.name == "falcon",
    )
    types, remarks = types_without_importance({name: shape[::-1] for name, shape, _ in found}, mix, facts)
    if packed:
        types |= dict.fromkeys(packed, "mxfp4")
        remarks.append(f"{len(packed)} tensors stay mxfp4, which is what the folder has ({packed[0]} …)")
    named = {name: gguf.GGMLQuantizationType[kind.upper()] for name, kind in types.items()}
    return [Made(name, shape, named[name], group) for name, shape, group in found], remarks


def _write_tensors(
    writer: gguf.GGUFWriter,
    cls: type[Architecture],
    source: Folder,
    groups: list[tuple[str, list[Source | Blocks]]],
    made: list[Made],
    progress: Progress,
) -> None:
    total, done = sum(map(_nbytes, made)) or 1, 0
    types = {m.name: m for m in made}
    with ThreadPoolExecutor(physical_cores()) as pool:
        for name, sources in groups:
            arrays = [s.read() for s in sources]
            for out, x in _results(cls, source, name, arrays, len(sources) > 1):
                m = types[out]
                if not np.isfinite(x).all():
                    raise ModelError(f"{source.path}: {name} has values that are not finite")
                writer.write_tensor_data(_encoded(np.ascontiguousarray(x), m.type, pool))
                done += _nbytes(m)
                progress(done / total, out)
    for name, x in cls.extra_tensors(source.config).items():
        writer.write_tensor_data(x.astype(np.float32))
        progress(1.0, name)


def _encoded(x: np.ndarray, kind: gguf.GGMLQuantizationType, pool: ThreadPoolExecutor) -> np.ndarray:
    if x.dtype == np.uint8:
        return x  # blocks already
    x = x.astype(np.float32, copy=False)
    if kind == gguf.GGMLQuantizationType.F32:
        return x
    if kind == gguf.GGMLQuantizationType.F16:
        half = x.astype(np.float16)
        if not np.isfinite(half).all():
            raise ModelError("a weight is too large for f16; convert to bf16 or f32")
        return half
    name, rows = kind.name.lower().replace("_k", "_K"), x.reshape(-1, x.shape[-1])
    step = max(_CHUNK // rows.shape[1], 1)
    begins = range(0, len(rows), step)
    return np.concatenate(list(pool.map(lambda begin: quantize(name, rows[begin : begin + step]), begins)))


def _nbytes(m: Made) -> int:
    block, size = gguf.GGML_QUANT_SIZES[m.type]
    return int(np.prod(m.shape)) // block * size


def _pooling(source: Folder) -> dict[str, int]:
    """How a folder of sentence-transformers makes one embedding of many hidden states."""
    for path in source.path.glob("*_Pooling/config.json"):
        chosen = source.json(str(path.relative_to(source.path)))
        modes = {"mean_tokens": "mean", "cls_token": "cls", "lasttoken": "last"}
        found = [kind for name, kind in modes.items() if chosen.get(f"pooling_mode_{name}")]
        if len(found) != 1:
            raise UnsupportedModelError(f"{path}: pooling is not one of {', '.join(modes)}")
        return {"pooling_type": POOLING.index(found[0])}
    return {}


def _write_keys(
    writer: gguf.GGUFWriter, cls: type[Architecture], source: Folder, mix: str, pre: str | None
) -> None:
    writer.add_name(source.name)
    writer.add_file_type(MIXES[mix][0])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for key, value in (cls.convert_keys(source.config) | _pooling(source)).items():
        add_key(writer, f"{cls.name}.{key}", value)
    vocabulary.write(writer, source, pre)
