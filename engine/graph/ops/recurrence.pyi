from engine.ggml.operations import Context
from engine.ggml.tensor import Tensor
from engine.graph.ops.attention import PagedAttention

class RecurrentStates:
    @property
    def table(self) -> Tensor | None: ...
    @property
    def n_slots(self) -> int: ...
    def __init__(
        self,
        paged: PagedAttention,
        n_layers: int,
        table: Tensor | None = None,
        offsets: list[int] | None = None,
    ) -> None: ...
    def convolution(
        self,
        ctx: Context,
        layer: int,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        silu: bool = False,
    ) -> Tensor: ...
    def scan(
        self,
        ctx: Context,
        layer: int,
        after: int,
        d_state: int,
        inputs: list[Tensor],
        bias: Tensor | None = None,
    ) -> Tensor: ...
    def delta(
        self,
        ctx: Context,
        layer: int,
        after: int,
        keys: tuple[int, int],
        inputs: list[Tensor],
        tiled: bool = False,
    ) -> Tensor: ...
