"""Tokenizers, built from the vocabulary of a GGUF file. One file per kind; no ggml, no compiled extension."""

from __future__ import annotations

import os

from engine.gguf import GGUFFile
from engine.tokenizer import bpe as _bpe  # noqa: F401  (registers its kinds)
from engine.tokenizer import spm as _spm  # noqa: F401
from engine.tokenizer.base import Tokenizer

__all__ = ["Tokenizer", "load_tokenizer"]


def load_tokenizer(source: str | os.PathLike[str] | GGUFFile) -> Tokenizer:
    """The tokenizer of a model or of a file with a vocabulary only. Raises ModelError."""
    if isinstance(source, GGUFFile):
        return Tokenizer.from_gguf(source)
    with GGUFFile.open(source) as gguf:
        return Tokenizer.from_gguf(gguf)
