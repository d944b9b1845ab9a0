"""A Hugging Face model folder: its configuration, and what is in its safetensors files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gguf.utility import SafetensorsLocal

from engine.convert.tensors import FP8_BLOCK, FP8Tensor, MXFP4Tensor, SourceTensor, Weight
from engine.errors import ModelError, UnsupportedModelError

_SCALE_ENDS = ("_scale_inv", "_scale")


class VocabularyFolder:
    """A folder of which only the tokenizer is used, for an embedding with `n_rows` rows."""

    def __init__(self, path: Path, n_rows: int) -> None:
        self.path, self.config = path, {"vocab_size": n_rows}

    def json(self, name: str, *, optional: bool = False) -> dict[str, Any]:
        """The content of a JSON file; {} if it is `optional` and absent. Raises ModelError."""
        return read_json(self.path, name, optional)


def read_json(folder: Path, name: str, optional: bool) -> dict[str, Any]:
    path = folder / name
    if optional and not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{path} is missing; is {folder} a Hugging Face model folder?") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} is not a JSON object")
    return content


def stored_tensors(path: Path, named_by: str) -> dict[str, SourceTensor]:
    """The tensors of a safetensors file, which another file names. Raises ModelError."""
    try:
        stored = SafetensorsLocal(path).tensors
    except FileNotFoundError as error:
        raise ModelError(f"{path} is missing; {named_by} names it") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is damaged: {error}") from error
    return {name: SourceTensor(name, t) for name, t in stored.items()}


class Folder(VocabularyFolder):
    """`config`: config.json, of composed models the text part. `tensors` by name, buffers among them.

    Nothing of a tensor is checked but its name: a checkpoint may hold what no weight is.
    """

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
        self._check_quantization()
        self.tensors = self._weights(self._files())

    def _check_quantization(self) -> None:
        """UnsupportedModelError for weights whose values we cannot compute."""
        config = self.config.get("quantization_config") or self.config.get("compression_config") or {}
        method = config.get("quant_method", "mxfp4")
        if method in ("mxfp4", "fp8"):
            return
        if method == "compressed-tensors" and config.get("format") in ("float-quantized", "naive-quantized"):
            groups = (config.get("config_groups") or {}).values()
            if all((group.get("weights") or {}).get("type") == "float" for group in groups):
                return
        raise UnsupportedModelError(
            f"{self.path / 'config.json'}: the weights are quantized by {method!r}; convert the original "
            "model, and quantize that"
        )

    def _files(self) -> dict[str, SourceTensor]:
        index = self.json("model.safetensors.index.json", optional=True)
        if index:
            files = sorted(set(index.get("weight_map", {}).values()))
        elif (self.path / "model.safetensors").is_file():  # others may be copies
            files = ["model.safetensors"]
        else:
            files = sorted(p.name for p in self.path.glob("*.safetensors"))
        if not files:
            if [p for end in ("bin", "pth", "pt") for p in self.path.glob(f"*.{end}")]:
                raise ModelError(
                    f"{self.path} has only pickled PyTorch weights, which can run code when read; load the "
                    "model with transformers and save_pretrained() it, which writes safetensors"
                )
            raise ModelError(f"{self.path} has no *.safetensors files")
        tensors: dict[str, SourceTensor] = {}
        for name in files:
            tensors |= stored_tensors(self.path / name, "model.safetensors.index.json")
        self.missing = sorted(set(index.get("weight_map", {})) - set(tensors))
        return tensors

    def _weights(self, stored: dict[str, SourceTensor]) -> dict[str, Weight]:
        """Tensors by name, with those that belong together as one."""
        quantization = self.config.get("quantization_config") or {}
        block = quantization.get("weight_block_size") or FP8_BLOCK
        weights: dict[str, Weight] = {}
        for name, tensor in stored.items():
            stem, end = name[:-7], name[-7:]
            scales = next((stored[f"{name}{e}"] for e in _SCALE_ENDS if f"{name}{e}" in stored), None)
            if end == "_blocks" and f"{stem}_scales" in stored:
                weights[stem] = packed = MXFP4Tensor(tensor, stored[f"{stem}_scales"])
                packed.check()
            elif scales is not None and tensor.dtype.startswith("F8_"):
                weights[name] = FP8Tensor(tensor, scales, (int(block[0]), int(block[1])))
            elif not _belongs_to_another(name, stored):
                weights[name] = tensor
        return weights


def _belongs_to_another(name: str, stored: Mapping[str, SourceTensor]) -> bool:
    if name.endswith("_scales") and f"{name.removesuffix('_scales')}_blocks" in stored:
        return True
    for end in _SCALE_ENDS:
        weight = stored.get(name.removesuffix(end)) if name.endswith(end) else None
        if weight is not None and weight.dtype.startswith("F8_"):
            return True
    return False
