"""Slots: the tensors that an architecture wants, and the small modules that they are bound into.

A slot names a tensor of the file, its shape and the operation that will read it, from which the
loader knows where it may live. An optional tensor that is absent leaves None: the step is skipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Op = Literal["mul_mat", "mul_mat_id", "get_rows", "mul", "add", "add_id", "rope"]


@dataclass(frozen=True)
class Slot:
    """One tensor. `layer` -1: the input side; n_layer: the output side. `instead`: used if absent."""

    name: str
    shape: tuple[int, ...]  # ggml order, trailing ones left out
    op: Op
    layer: int
    optional: bool = False
    instead: str | None = None


@dataclass(frozen=True)
class Linear:
    """y = weight x (+ bias). weight [n_in, n_out], x [n_in, rows] -> [n_out, rows]."""

    weight: Any
    bias: Any = None

    def __call__(self, ctx: Any, x: Any) -> Any:
        y = self.weight.times(ctx, x)
        return y if self.bias is None else ctx.add(y, self.bias)


@dataclass(frozen=True)
class RMSNorm:
    """x / rms(x) * weight (Zhang and Sennrich 2019, arXiv 1910.07467)."""

    weight: Any
    eps: float

    def __call__(self, ctx: Any, x: Any) -> Any:
        return ctx.mul(ctx.rms_norm(x, self.eps), self.weight)


@dataclass(frozen=True)
class LayerNorm:
    """(x - mean) / deviation * weight (+ bias) (Ba 2016, arXiv 1607.06450)."""

    weight: Any
    bias: Any
    eps: float

    def __call__(self, ctx: Any, x: Any) -> Any:
        y = ctx.mul(ctx.norm(x, self.eps), self.weight)
        return y if self.bias is None else ctx.add(y, self.bias)


Norm = RMSNorm | LayerNorm


class Binder:
    """Collects slots, or binds them to tensors: an architecture is written once for both uses.

    With `tensors` None it only records what is wanted; else it hands out the loaded tensors.
    """

    def __init__(self, has: Any, tensors: dict[tuple[str, str], Any] | None = None) -> None:
        self.has, self.tensors = has, tensors
        self.slots: list[Slot] = []

    def tensor(
        self,
        name: str,
        shape: tuple[int, ...],
        op: Op,
        layer: int,
        *,
        optional: bool = False,
        instead: str | None = None,
    ) -> Any:
        slot = Slot(name, shape, op, layer, optional, instead)
        found = name if self.has(name) else instead if instead and self.has(instead) else None
        if found is None and optional:
            return None
        self.slots.append(slot)
        return None if self.tensors is None else self.tensors[found or name, op]

    def linear(self, name: str, n_in: int, n_out: int, layer: int, *, instead: str | None = None) -> Linear:
        """A matrix called `name`.weight and, if the file has it, `name`.bias."""
        weight = self.tensor(
            f"{name}.weight",
            (n_in, n_out),
            "mul_mat",
            layer,
            instead=f"{instead}.weight" if instead else None,
        )
        return Linear(weight, self.tensor(f"{name}.bias", (n_out,), "add", layer, optional=True))

    def rms_norm(self, name: str, shape: tuple[int, ...], eps: float, layer: int) -> RMSNorm:
        return RMSNorm(self.tensor(f"{name}.weight", shape, "mul", layer), eps)

    def layer_norm(self, name: str, shape: tuple[int, ...], eps: float, layer: int) -> LayerNorm:
        """With a bias if the file has it."""
        weight = self.tensor(f"{name}.weight", shape, "mul", layer)
        return LayerNorm(weight, self.tensor(f"{name}.bias", shape, "add", layer, optional=True), eps)
