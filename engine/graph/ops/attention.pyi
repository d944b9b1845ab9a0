from array import array

from engine.ggml.operations import Context
from engine.ggml.tensor import Tensor

class PagedAttention:
    def __init__(self, n_layers: int, windowed: list[bool] | None = None) -> None: ...
    def prepare(
        self, sequences: list[tuple[array[int], int, int, int]] | list[tuple[array[int], int, int, int, int]]
    ) -> None: ...
    def op(
        self,
        ctx: Context,
        layer: int,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        dv: int,
        scale: float,
        softcap: float,
        max_bias: float,
        window: int,
        sinks: Tensor | None = None,
        causal: bool = True,
        chunked: bool = False,
    ) -> Tensor: ...
