"""What the file of a model that is not loaded says about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.errors import ModelError
from engine.gguf import GGUFFile


def read_header(path: Path) -> dict[str, Any]:
    """A partial description under the names of a loaded model's; {} if the file is not a model.

    It also has `takes_tools`: whether the chat template supports tools. Blocks, so call it in a thread.
    """
    try:
        with GGUFFile.open(path) as gguf:
            arch = gguf.arch
            template = gguf.get_str("tokenizer.chat_template", None) or ""
            return {
                "architecture": arch,
                "n_params": sum(tensor.n_elements for tensor in gguf.tensors.values()),
                "size_bytes": sum(tensor.nbytes for tensor in gguf.tensors.values()),
                "n_ctx_train": gguf.get_int(f"{arch}.context_length", 0),
                "n_embd": gguf.get_int(f"{arch}.embedding_length", 0),
                "n_layer": gguf.get_int(f"{arch}.block_count", 0),
                "generates": gguf.get_bool(f"{arch}.attention.causal", True),
                "takes_tools": "tools" in template,
            }
    except ModelError:
        return {}
