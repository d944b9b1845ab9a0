"""Tensor specs, and the binder that turns them into layers.

An architecture is written once for two uses: the loader collects the specs of its tensors (what the file must
have, and which operation reads it, which decides where it may live), then binds the loaded tensors to layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, cast

from engine.ggml.tensor import Tensor
from engine.nn.layers import LayerNorm, Linear, Matrix, RMSNorm

Op = Literal["mul_mat", "mul_mat_id", "get_rows", "mul", "add", "add_id", "rope"]


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

    has: whether the file has a tensor of this name.
    """

    def __init__(
        self, has: Callable[[str], bool], tensors: Mapping[tuple[str, str], Matrix] | None = None
    ) -> None:
        self.has, self.tensors = has, tensors
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
        """A tensor that the file may lack."""
        return cast(Tensor | None, self._bind(TensorSpec(name, shape, op, layer, optional=True)))

    def linear(self, name: str, n_in: int, n_out: int, layer: int, *, fallback: str | None = None) -> Linear:
        """The matrix `name`.weight and, if the file has it, `name`.bias."""
        fallback = f"{fallback}.weight" if fallback else None
        spec = TensorSpec(f"{name}.weight", (n_in, n_out), "mul_mat", layer, fallback=fallback)
        return Linear(cast(Matrix, self._bind(spec)), self.optional(f"{name}.bias", (n_out,), "add", layer))

    def rms_norm(self, name: str, shape: tuple[int, ...], eps: float, layer: int) -> RMSNorm:
        return RMSNorm(self.tensor(f"{name}.weight", shape, "mul", layer), eps)

    def layer_norm(self, name: str, shape: tuple[int, ...], eps: float, layer: int) -> LayerNorm:
        """With a bias if the file has it."""
        weight = self.tensor(f"{name}.weight", shape, "mul", layer)
        return LayerNorm(weight, self.optional(f"{name}.bias", shape, "add", layer), eps)
