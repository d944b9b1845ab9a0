"""What a model file says of a model that is not loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.errors import ModelError
from engine.gguf import GGUFFile


def read_header(path: Path) -> dict[str, Any]:
    """Under the names of a loaded model's description, as far as the file tells; {}: it is no model.

    Beside these `takes_tools`: whether its chat template knows tools. Blocks: for a thread.
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
