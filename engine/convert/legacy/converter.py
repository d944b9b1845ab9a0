"""Converts pre-GGUF files (ggml, ggmf, ggjt) to GGUF, one tensor at a time; tensors keep their types."""

from __future__ import annotations

import json
import os
from contextlib import closing
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from engine.convert import vocabulary
from engine.convert.folder import VocabularyFolder
from engine.convert.huggingface.names import by_parts
from engine.convert.legacy import vocabulary as legacy_vocabulary
from engine.convert.legacy.file import LegacyFile, LegacyTensor, read
from engine.convert.legacy.formats import FLAG_FIELDS, FORMATS, UNUSED_FIELDS
from engine.convert.output import add_key
from engine.errors import ConfigError, ModelError
from engine.gguf.output import replacing, write_data
from engine.types import ProgressCallback


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    architecture: str | None = None,
    vocab: str | os.PathLike[str] | None = None,
    keys: dict[str, str] | None = None,
    force: bool = False,
    progress: ProgressCallback | None = None,
) -> list[str]:
    """Write `target`; returns remarks about values that the old file lacks.

    architecture: where it is not recognised. vocab: a Hugging Face folder whose tokenizer replaces the
    file's. keys: values (JSON, else text) that override the architecture's keys. Raises ConfigError for bad
    arguments, ModelError for a damaged file, UnsupportedModelError (which names the version) for blocks of an
    obsolete layout.
    """
    progress = progress or (lambda fraction, text: None)
    file = read(Path(source), architecture)
    layout = FORMATS[file.architecture]
    overrides = {name: _value(name, text) for name, text in (keys or {}).items()}
    values = _keys(file) | overrides
    remarks = [
        f"{file.architecture}.{name} is {value}: pre-GGUF files do not store it; --set {name}=… changes it"
        for name, value in layout.defaults.items()
        if isinstance(value, (int, float)) and name not in overrides
    ]
    n_rows = _tensor(file, "token_embd.weight").shape[1]
    if len(file.tokens) > n_rows:
        raise ModelError(f"{file.label}: {len(file.tokens)} tokens, but {n_rows} rows of embedding")
    with (
        replacing(Path(target), force) as part,
        closing(gguf.GGUFWriter(str(part), file.architecture)) as writer,
    ):
        writer.add_name(file.path.stem)
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        for name, value in values.items():
            add_key(writer, f"{file.architecture}.{name}", value)
        if vocab is not None:
            vocabulary.write(writer, VocabularyFolder(Path(vocab), n_rows), None)
        else:
            remarks += legacy_vocabulary.write(
                writer, file, n_rows, lambda done: progress(done / 10, "finding the merges of the vocabulary")
            )
        for tensor in file.tensors.values():
            kind = gguf.GGMLQuantizationType.F32 if len(tensor.shape) == 1 else tensor.type
            writer.add_tensor_info(
                tensor.name, tensor.shape[::-1], np.dtype(np.float32), _nbytes(tensor, kind), kind
            )
        write_data(
            writer,
            ((tensor, _content(file, tensor)) for tensor in file.tensors.values()),
            sum(tensor.nbytes for tensor in file.tensors.values()),
            lambda done, text: progress(0.1 + 0.9 * done, text),
        )
    return remarks


def _keys(file: LegacyFile) -> dict[str, Any]:
    """The architecture's keys: from the file's fields, its tensors' shapes, and the format's defaults."""
    keys: dict[str, Any] = dict(FORMATS[file.architecture].defaults)
    for name, value in file.values.items():
        if name not in UNUSED_FIELDS:
            keys[name] = bool(value) if name in FLAG_FIELDS else value
    embedding = _tensor(file, "token_embd.weight")
    if len(embedding.shape) != 2 or embedding.shape[0] != keys["embedding_length"]:
        raise ModelError(f"{file.label}: the embedding has the shape {list(embedding.shape)}")
    keys["feed_forward_length"] = _tensor(file, "blk.0.ffn_up.weight").shape[-1]
    n_head = keys["attention.head_count"]
    if "blk.0.attn_k.weight" in file.tensors:  # LLaMA 2 70B has fewer KV heads, but no field that says so
        head_dim = max(keys["embedding_length"] // n_head, 1)
        keys["attention.head_count_kv"] = _tensor(file, "blk.0.attn_k.weight").shape[-1] // head_dim
    return keys


def _tensor(file: LegacyFile, name: str) -> LegacyTensor:
    if name not in file.tensors:
        raise ModelError(f"{file.label}: tensor {name} is missing")
    return file.tensors[name]


def _nbytes(tensor: LegacyTensor, kind: gguf.GGMLQuantizationType) -> int:
    block, size = gguf.GGML_QUANT_SIZES[kind]
    return int(np.prod(tensor.shape, dtype=np.int64)) // block * size


def _content(file: LegacyFile, tensor: LegacyTensor) -> np.ndarray:
    """The tensor's bytes with rows in GGUF's order; vectors become float32."""
    raw = np.memmap(file.path, np.uint8, "r", tensor.offset, (tensor.nbytes,))
    n_rows = tensor.shape[-1]
    rows: np.ndarray
    if len(tensor.shape) == 1:
        rows = gguf.quants.dequantize(raw, tensor.type).astype(np.float32)
    else:
        rows = raw.reshape(n_rows, -1)
    if FORMATS[file.architecture].qkv_by_head and ".attn_qkv." in tensor.name:
        n_head = int(file.values["attention.head_count"])
        if n_rows % (3 * n_head):
            raise ModelError(f"{file.label}: {tensor.name} cannot be split into {n_head} heads")
        rows = by_parts(rows, n_head)
    return np.ascontiguousarray(rows)


def _value(name: str, text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    if not isinstance(value, (bool, int, float, str)):
        raise ConfigError(f"the value of {name} is {text}; it must be a number, a boolean or a string")
    return value
