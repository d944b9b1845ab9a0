"""Tokenizers built from the vocabulary of a GGUF file; one file per kind.

Imports only `engine.gguf`, and nothing compiled: used by `engine.model` and by the server.
"""

from __future__ import annotations

import os

from engine.gguf import GGUFFile
from engine.tokenizer.base import Tokenizer
from engine.tokenizer.bpe import BPETokenizer
from engine.tokenizer.spm import SPMTokenizer
from engine.tokenizer.unigram import UnigramTokenizer
from engine.tokenizer.wordpiece import WordPieceTokenizer

__all__ = ["Tokenizer", "load_tokenizer"]

Tokenizer.kinds.update(llama=SPMTokenizer, gpt2=BPETokenizer, gemma4=BPETokenizer)
Tokenizer.kinds.update(bert=WordPieceTokenizer, t5=UnigramTokenizer)


def load_tokenizer(source: str | os.PathLike[str] | GGUFFile) -> Tokenizer:
    """The tokenizer of a model, or of a file that only has a vocabulary. Raises ModelError."""
    if isinstance(source, GGUFFile):
        return Tokenizer.from_gguf(source)
    with GGUFFile.open(source) as gguf:
        return Tokenizer.from_gguf(gguf)
