"""Vocabularies for tests: those published with ggml's source package, and small ones made up on the spot."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from engine.tokenizer import Tokenizer, load_tokenizer
from engine.tokenizer.bpe import BYTE_ALPHABET
from ggml.fetch import pinned_package
from support.builders.gguf import F32, I32, STRING, GGUFBuilder

BOUNDARY = "\n__ggml_vocab_test__\n"
BYTES = sorted(BYTE_ALPHABET, key=BYTE_ALPHABET.__getitem__)  # spelled as GPT-2's vocabularies do
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)


def models_dir() -> Path:
    """Where the pinned source package keeps its vocabularies."""
    return pinned_package() / "vendor" / "llama.cpp" / "models"


def published_path(name: str) -> Path:
    return models_dir() / f"ggml-vocab-{name}.gguf"


@lru_cache(maxsize=2)
def published(name: str) -> Tokenizer:
    return load_tokenizer(published_path(name))


def vectors(name: str) -> list[tuple[str, list[int]]]:
    """(text, ids) of a published vocabulary, read as llama.cpp's test-tokenizer-0 reads them."""
    path = published_path(name)
    texts = Path(f"{path}.inp").read_bytes().decode().removesuffix(BOUNDARY).split(BOUNDARY)
    lines = Path(f"{path}.out").read_text().splitlines()
    return [(text, [int(i) for i in line.split()]) for text, line in zip(texts, lines, strict=True)]


def write(path: Path, kind: str, tokens: list[str], **keys: Any) -> Path:
    """A file with a vocabulary only. `types`, `scores`, `merges`; other keys of `tokenizer.ggml` by name."""
    builder = GGUFBuilder().key("general.architecture", "llama").key("tokenizer.ggml.model", kind)
    builder.key("tokenizer.ggml.tokens", tokens, STRING)
    arrays = {"types": ("token_type", I32), "scores": ("scores", F32), "merges": ("merges", STRING)}
    for name, value in keys.items():
        key, element = arrays.get(name, (name, None))
        builder.key(f"tokenizer.ggml.{key}" if "." not in key else key, value, element)
    return builder.write(path)


def spm(path: Path, scores: dict[str, float], *, n_bytes: int = 256, **keys: Any) -> Tokenizer:
    """A SentencePiece vocabulary: unk, bos, eos, bytes, then the pieces given."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(n_bytes)), *scores]
    types = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * n_bytes, *[NORMAL] * len(scores)]
    values = [0.0] * (3 + n_bytes) + list(scores.values())
    keys = {"types": types, "scores": values, "bos_token_id": 1, "eos_token_id": 2} | keys
    return load_tokenizer(write(path, "llama", tokens, **keys))


def byte_level(path: Path, added: dict[str, int], **keys: Any) -> Tokenizer:
    """All bytes, then tokens of the types given; id 256 is the first of them."""
    types = [NORMAL] * 256 + list(added.values())
    keys = {"types": types, "merges": [], "pre": "gpt-2"} | keys
    return load_tokenizer(write(path, "gpt2", [*BYTES, *added], **keys))
