"""Tensor specs, and the binder that turns them into layers.

An architecture is written once for two uses. The loader first collects the specs of its tensors: what the
file must have, and the operation that reads it, which determines where the tensor can be. Then it binds the
loaded tensors to layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from engine.ggml.tensor import Tensor
from engine.nn.layers import Experts, LayerNorm, Linear, Matrix, RMSNorm, TokenEmbedding
from engine.nn.low_rank import LowRank

# host: read by a kernel of ours on the CPU, wherever the layer is.
Op = Literal["mul_mat", "mul_mat_heads", "mul_mat_id", "get_rows", "mul", "add", "add_id", "rope", "host"]


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of an architecture.

    shape: ggml order, trailing ones left out. op: the operation that reads it. layer: -1 is the input side,
    n_layer the output side. fallback: the tensor that is read if this one is absent.
    """

    name: str
    shape: tuple[int, ...]
    op: Op
    layer: int
    optional: bool = False
    fallback: str | None = None


class Binder:
    """Collects the specs of tensors and, with `tensors`, hands out the loaded ones by (name, operation).

    has: whether the file has a tensor of this name. adapters: by number, what each has for a tensor by name.
    """

    def __init__(
        self,
        has: Callable[[str], bool],
        tensors: Mapping[tuple[str, str], Matrix] | None = None,
        adapters: Sequence[Mapping[str, LowRank]] = (),
    ) -> None:
        self.has, self.tensors, self.adapters = has, tensors, adapters
        self.specs: list[TensorSpec] = []

    def _bind(self, spec: TensorSpec) -> Matrix | None:
        name = spec.name
        if not self.has(name):
            if spec.fallback is not None and self.has(spec.fallback):
                name = spec.fallback
            elif spec.optional:
                return None
        self.specs.append(spec)
        # While specs are collected there are no tensors, and nothing calls what is made of them.
        return cast(Tensor, None) if self.tensors is None else self.tensors[name, spec.op]

    def tensor(self, name: str, shape: tuple[int, ...], op: Op, layer: int) -> Tensor:
        """A tensor that the file must have; see `TensorSpec`."""
        return cast(Tensor, self._bind(TensorSpec(name, shape, op, layer)))

    def optional(self, name: str, shape: tuple[int, ...], op: Op, layer: int) -> Tensor | None:
        """A tensor that may be missing from the file."""
        return cast(Tensor | None, self._bind(TensorSpec(name, shape, op, layer, optional=True)))

    def linear(self, name: str, n_in: int, n_out: int, layer: int, *, fallback: str | None = None) -> Linear:
        """The matrix `name`.weight and, if the file has it, `name`.bias."""
        fallback = f"{fallback}.weight" if fallback else None
        spec = TensorSpec(f"{name}.weight", (n_in, n_out), "mul_mat", layer, fallback=fallback)
        weight = cast(Matrix, self._bind(spec))
        bias = self.optional(f"{name}.bias", (n_out,), "add", layer)
        return Linear(weight, bias, self._adapters_of(spec.name))

    def experts(self, name: str, n_in: int, n_out: int, n_expert: int, layer: int) -> Experts:
        """The matrices `name`.weight and, if the file has them, the biases `name`.bias."""
        weight = self.tensor(f"{name}.weight", (n_in, n_out, n_expert), "mul_mat_id", layer)
        bias = self.optional(f"{name}.bias", (n_out, n_expert), "add_id", layer)
        return Experts(weight, bias, self._adapters_of(f"{name}.weight"))

    def embedding(self, n_embd: int, n_vocab: int) -> TokenEmbedding:
        """The token embedding."""
        name = "token_embd.weight"
        return TokenEmbedding(self.tensor(name, (n_embd, n_vocab), "get_rows", -1), self._adapters_of(name))

    def _adapters_of(self, name: str) -> dict[int, LowRank]:
        return {i: matrices[name] for i, matrices in enumerate(self.adapters) if name in matrices}

    def rms_norm(self, name: str, shape: tuple[int, ...], eps: float, layer: int) -> RMSNorm:
        return RMSNorm(self.tensor(f"{name}.weight", shape, "mul", layer), eps)

    def layer_norm(self, name: str, shape: tuple[int, ...], eps: float, layer: int) -> LayerNorm:
        """A LayerNorm, with a bias if the file has one."""
        weight = self.tensor(f"{name}.weight", shape, "mul", layer)
        return LayerNorm(weight, self.optional(f"{name}.bias", shape, "add", layer), eps)
