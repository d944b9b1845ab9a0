from collections.abc import Collection, Sequence
from typing import Any

from engine.types import InferenceParameters, Token

class Sampler:
    """Chooses the tokens of one sequence."""

    n_vocab: int
    seed: int
    n_generated: int
    def __init__(
        self,
        params: InferenceParameters,
        n_vocab: int,
        eog_ids: Collection[int],
        history: Sequence[int] = (),
        n_generated: int = 0,
        mu: float | None = None,
    ) -> None: ...
    @property
    def mu(self) -> float | None: ...
    def sample(self, logits: Any, mask: Any | None = None) -> Token:
        """`logits`: buffer of n_vocab float32; `mask`: buffer of uint32, bit i set: token i allowed."""
