"""Random texts that a constraint allows, token by token, on the vocabularies of real models."""

from __future__ import annotations

import random
from array import array
from functools import cache
from pathlib import Path

from engine.constraint.compiler import ConstraintCompiler, ConstraintMatcher, vocabulary_of
from engine.tokenizer import Tokenizer, load_tokenizer
from engine.types import Constraint
from ggml.fetch import LLAMA, pinned_package

MODELS = Path(__file__).resolve().parents[3] / "models"


@cache
def tokenizer(name: str) -> Tokenizer:
    if name == "stories":
        return load_tokenizer(MODELS / "stories.gguf")
    return load_tokenizer(pinned_package() / LLAMA / "models" / f"ggml-vocab-{name}.gguf")


@cache
def compiler(name: str = "stories") -> ConstraintCompiler:
    return ConstraintCompiler(lambda: vocabulary_of(tokenizer(name)))


def allowed(matcher: ConstraintMatcher, n_words: int) -> set[int]:
    mask = array("I", bytes(4 * n_words))
    matcher.fill(mask)
    return {32 * i + b for i, word in enumerate(mask) if word for b in range(32) if word >> b & 1}


class Walk:
    """A text of tokens that a constraint allows, chosen at random."""

    def __init__(self, constraint: Constraint, name: str = "stories", seed: int = 0) -> None:
        self.compiler, self.tokenizer = compiler(name), tokenizer(name)
        self.matcher = self.compiler.compile(constraint)
        self.chance = random.Random(seed)
        self.tokens: list[int] = []

    def run(self, n: int, prefer: bytes = b"") -> Walk:
        """At most `n` tokens. After a third an end is taken where it may come, or bytes of `prefer`."""
        eog = self.tokenizer.eog_ids
        for i in range(n):
            actual = allowed(self.matcher, self.compiler.n_words)
            assert bool(actual & eog) == self.matcher.may_stop
            assert not actual & eog or actual >= eog
            if self.matcher.may_stop and (3 * i > n or not actual - eog):
                break
            choice = sorted(actual - eog)
            assert choice
            if 3 * i > n:
                best = [t for t in choice if self.tokenizer.token_bytes(t) in [bytes([b]) for b in prefer]]
                choice = best or choice
            self.tokens.append(self.chance.choice(choice))
            self.matcher.commit(self.tokens[-1])
            if self.matcher.must_stop:
                break
        return self

    @property
    def text(self) -> str:
        return b"".join(map(self.tokenizer.token_bytes, self.tokens)).decode()
