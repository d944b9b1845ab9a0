"""A Hugging Face model folder: configuration, and tensors in safetensors files, read one by one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf.utility import LocalTensor, SafetensorsLocal

from engine.errors import ModelError, UnsupportedModelError

_DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}


@dataclass(frozen=True)
class Source:
    """One tensor of the folder; shape in numpy's order."""

    name: str
    tensor: LocalTensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    def read(self) -> np.ndarray:
        """Its numbers, float32."""
        raw = self.tensor.mmap_bytes().view(_DTYPES[self.tensor.dtype]).reshape(self.shape)
        if self.tensor.dtype == "BF16":
            wide = raw.astype(np.uint32)
            wide <<= 16  # the upper half of a float32
            return wide.view(np.float32)
        return raw.astype(np.float32)


@dataclass(frozen=True)
class Blocks:
    """A tensor that the folder has as MXFP4 (OCP Microscaling 1.0): packed numbers and their scales.

    shape: numpy's order, of bytes, which are those of ggml: of each 32 numbers, 17.
    """

    name: str
    blocks: LocalTensor  # [..., n / 32, 16]
    scales: LocalTensor  # [..., n / 32]

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.scales.shape[:-1], self.scales.shape[-1] * 17)

    def read(self) -> np.ndarray:
        """uint8. Neighbours share a byte in the folder; in ggml those that are 16 apart do."""
        raw = self.blocks.mmap_bytes().reshape(self.blocks.shape)
        numbers = np.stack([raw & 15, raw >> 4], axis=-1).reshape(*raw.shape[:-1], 32)
        scales = self.scales.mmap_bytes().reshape(*self.scales.shape, 1)
        made = np.concatenate([scales, numbers[..., :16] | numbers[..., 16:] << 4], axis=-1)
        return made.reshape(self.shape)


class VocabularyFolder:
    """A folder of which only the tokenizer is used, for an embedding of `n_rows`."""

    def __init__(self, path: Path, n_rows: int) -> None:
        self.path, self.config = path, {"vocab_size": n_rows}

    def json(self, name: str, *, optional: bool = False) -> dict[str, Any]:
        """One of its JSON files; {} if it is `optional` and absent."""
        return read_json(self.path, name, optional)


def read_json(folder: Path, name: str, optional: bool) -> dict[str, Any]:
    path = folder / name
    if optional and not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{path} is missing; is {folder} a Hugging Face model folder?") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} holds no JSON object")
    return found


class Folder(VocabularyFolder):
    """`config`: config.json, of composed models the text part. `tensors` by name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config: dict[str, Any] = self.json("config.json")
        classes = self.config.get("architectures")
        if not (isinstance(classes, list) and classes and isinstance(classes[0], str)):
            raise ModelError(f"{path / 'config.json'} has no `architectures`")
        self.model_class: str = classes[0]
        text = self.config.get("text_config")
        if isinstance(text, dict):
            self.config = {k: v for k, v in self.config.items() if k != "text_config"} | text
        self.name = path.resolve().name
        method = (self.config.get("quantization_config") or {}).get("quant_method", "mxfp4")
        if method != "mxfp4":
            raise UnsupportedModelError(
                f"{path / 'config.json'}: the weights are quantized by {method!r}; convert the original "
                "model, and quantize that"
            )
        found = self._tensors()
        self.tensors: dict[str, Source | Blocks] = {}
        for name, t in found.items():
            stem, _, end = name.rpartition("_")
            if end == "blocks" and f"{stem}_scales" in found:
                self.tensors[stem] = self._packed(stem, t, found[f"{stem}_scales"])
            elif not (end == "scales" and f"{stem}_blocks" in found):
                self.tensors[name] = self._source(name, t)

    def _tensors(self) -> dict[str, LocalTensor]:
        index = self.json("model.safetensors.index.json", optional=True)
        if index:
            files = sorted(set(index.get("weight_map", {}).values()))
        else:
            files = sorted(p.name for p in self.path.glob("*.safetensors"))
        if not files:
            if list(self.path.glob("*.bin")) or list(self.path.glob("*.pth")):
                raise ModelError(
                    f"{self.path} has only pickled PyTorch weights; load the model with transformers and "
                    "save_pretrained() it, which writes safetensors"
                )
            raise ModelError(f"{self.path} has no *.safetensors files")
        found: dict[str, LocalTensor] = {}
        for name in files:
            path = self.path / name
            try:
                tensors = SafetensorsLocal(path).tensors
            except FileNotFoundError as error:
                raise ModelError(f"{path} is missing; model.safetensors.index.json names it") from error
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise ModelError(f"{path} is damaged: {error}") from error
            found.update(tensors)
        if missing := set(index.get("weight_map", {})) - set(found):
            raise ModelError(f"{self.path}: tensor {min(missing)} is missing in its file")
        return found

    def _source(self, name: str, t: LocalTensor) -> Source:
        where = f"{t.data_range.filename}: tensor {name}"
        if t.dtype not in _DTYPES:
            raise UnsupportedModelError(f"{where} has type {t.dtype} (supported: {', '.join(_DTYPES)})")
        self._check_size(where, t, np.dtype(_DTYPES[t.dtype]).itemsize)
        return Source(name, t)

    def _packed(self, name: str, blocks: LocalTensor, scales: LocalTensor) -> Blocks:
        where = f"{blocks.data_range.filename}: tensor {name}"
        if (blocks.dtype, scales.dtype) != ("U8", "U8") or tuple(blocks.shape) != (*scales.shape, 16):
            raise ModelError(f"{where}: its blocks and scales are not those of MXFP4")
        for t in (blocks, scales):
            self._check_size(where, t, 1)
        return Blocks(name, blocks, scales)

    def _check_size(self, where: str, t: LocalTensor, item: int) -> None:
        size = int(np.prod(t.shape)) * item
        end = t.data_range.offset + t.data_range.size
        if t.data_range.size != size or size <= 0 or end > Path(t.data_range.filename).stat().st_size:
            raise ModelError(f"{where} does not fit the file, which is damaged or was not downloaded whole")
