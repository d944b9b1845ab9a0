from engine.ggml.operations import Context
from engine.ggml.tensor import Tensor

def op(ctx: Context, name: str, x: Tensor, up: Tensor | None = None) -> Tensor: ...
