from collections.abc import Collection, Iterable, Sequence
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
        state: float | None = None,
    ) -> None: ...
    @property
    def state(self) -> float | None: ...
    def break_repetitions(self, breakers: Iterable[Sequence[int]]) -> None: ...
    def sample(self, logits: Any, mask: Any | None = None) -> Token:
        """`logits`: buffer of n_vocab float32; `mask`: buffer of uint32, bit i set: token i allowed."""
