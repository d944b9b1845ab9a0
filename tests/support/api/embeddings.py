"""What the fake engine's vectors and the tokens of a text are."""

from __future__ import annotations

import numpy as np

from support.fakes.engine import tokenizer, vectors

V1 = "/v1/embeddings"


def tokens_of(text: str) -> list[int]:
    return tokenizer().encode(text, add_special=True, parse_special=True)


def expected(tokens: list[int], pooling: str = "last") -> np.ndarray:
    actual = vectors(tokens, pooling).astype(np.float64)
    return actual / np.linalg.norm(actual, axis=-1, keepdims=True)
