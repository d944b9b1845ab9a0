"""The golden models as pre-GGUF files, with the vocabularies that such files have."""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer

from engine.tokenizer.bpe import BYTE_ALPHABET
from support.builders.golden import FOLDER, TinyModel, golden
from support.builders.legacy import FALCON_40B, Old, of_golden


def pieces(model: TinyModel) -> list[tuple[bytes, float]]:
    """The vocabulary of a golden model as old files of its kind have it: bytes of the tokens."""
    if model.keys["general.architecture"][0] != "llama":
        return [(text, 0.0) for text in raw_tokens(FOLDERS_TOKENIZER)]
    actual = [(b" \xe2\x81\x87 ", 0.0), (b"", 0.0), (b"", 0.0)]
    for i, piece in enumerate(model.keys["tokenizer.ggml.tokens"][0][3:], start=3):
        is_byte = piece.startswith("<0x")
        text = bytes([int(piece[3:5], 16)]) if is_byte else piece.replace("\u2581", " ").encode()
        actual.append((text, float(-i)))
    return actual


def raw_tokens(tokenizer: Tokenizer) -> list[bytes]:
    """Bytes of byte-level BPE's tokens by id; special ones as they are spelled."""
    vocab = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return [
        t.encode() if t.startswith("<") and len(t) > 2 else bytes(BYTE_ALPHABET[c] for c in t)
        for t, _ in vocab
    ]


FOLDERS_TOKENIZER = Tokenizer.from_file(str(FOLDER / "hf" / "gpt2" / "tokenizer.json"))


def old(name: str, **more: Any) -> Old:
    model = TinyModel.read(golden(name).path)
    if name == "falcon-40b":
        more["names"] = FALCON_40B
    return of_golden(model, pieces(model), **more)
