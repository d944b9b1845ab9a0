"""What layers share in the graph of one batch: inputs, masks, constants, the choice of activations."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from engine.ggml.tensor import F16, F32, I32
from engine.graph.forward_context import (
    BatchShape,
    Execution,
    ForwardContext,
    LongRopeFactors,
    Mask,
    build,
    n_nodes,
)
from engine.hparams import Rope
from support.builders.hparams import hparams

HP = hparams(2)


def context(*, n_tokens: int = 4, n_outputs: int = 1, backend: str = "cpu", **shape: Any) -> Any:
    execution: Any = Execution(None, None, ["explicit"] * 2, [backend] * 2, None)  # type: ignore[arg-type]
    return ForwardContext(HP, execution, BatchShape(n_tokens, n_outputs, 256, **shape))


def test_n_nodes_counts_layers_and_used_experts() -> None:
    dense = n_nodes(HP)
    assert n_nodes(replace(HP, n_layer=3, n_ff=(8,) * 3)) - dense == 128
    assert n_nodes(replace(HP, n_expert_used=5)) - dense == 2 * 5 * HP.n_layer


@pytest.mark.parametrize(("n_outputs", "expected"), [(0, 4), (1, 1), (3, 3), (4, 4)])
def test_outputs_of_selects_rows_only_where_some_are_left_out(n_outputs: int, expected: int) -> None:
    forward = context(n_outputs=n_outputs)
    x = forward.ctx.new(F32, (8, 4))
    assert forward.outputs_of(x).shape[1] == expected
    assert (forward.outputs_of(x) is x) == (expected == 4)


def test_masks_constants_and_token_types_are_one_input_for_all_layers() -> None:
    forward = context()
    one, other = Mask(0, False, True), Mask(8, False, True)
    assert forward._mask(one) is forward._mask(one)
    assert forward._mask(one) is not forward._mask(other)
    assert (forward._mask(one).type, forward._mask(one).shape[:2]) == (F16, (256, 4))
    assert forward.constant((1.0, 2.0)) is forward.constant((1.0, 2.0))
    assert forward.constant((1.0,)) is not forward.constant((2.0,))
    assert forward.token_type_ids() is forward.token_type_ids()
    assert forward.token_type_ids().type == I32


@pytest.mark.parametrize(("lengths", "n_rotations"), [("short", 1), ("long", 1), ("mixed", 2)])
def test_rotate_uses_the_factors_of_the_sequences_lengths(lengths: Any, n_rotations: int) -> None:
    forward = context(rope_lengths=lengths)
    rope = Rope(mode="neox", n_dims=4)
    factors = LongRopeFactors(*(forward.ctx.new(F32, (2,)) for _ in range(2)))
    used: list[Any] = []
    real = forward.ctx

    class Recording:
        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def rope(self, x: Any, positions: Any, rope: Rope, factors: Any) -> Any:
            used.append(factors)
            return real.rope(x, positions, rope, factors)

    forward.ctx = Recording()
    x = real.new(F32, (4, 2, 4))
    assert forward.rotate(x, rope, factors).shape == x.shape
    assert len(used) == n_rotations
    assert used == {"short": [factors.short], "long": [factors.long], "mixed": list(factors)}[lengths]


@pytest.mark.parametrize(
    ("backend", "name", "gated", "operation"),
    [
        ("cpu", "gelu", False, "gelu"),
        ("cpu", "gelu_erf", True, "gelu"),
        ("cpu", "silu", True, "gated"),
        ("cpu", "relu", False, "activation"),
        ("some", "gelu", False, "activation"),
        ("some", "gelu", True, "gated"),
        ("rpc", "gelu", True, "gelu_of_parts"),
        ("rpc", "gelu_erf", True, "gated"),
    ],
)
def test_activate_takes_the_operation_of_the_layers_device(
    backend: str, name: str, gated: bool, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []

    def record(operation: str) -> Any:
        return lambda *arguments: called.append(operation)

    forward = context(backend=backend)
    monkeypatch.setattr("engine.graph.forward_context.gelu", record("gelu"))
    operations = ("gated", "activation", "gelu_of_parts", "mul")
    forward.ctx = SimpleNamespace(**{name: record(name) for name in operations})
    forward.activate(1, name, "x", "up" if gated else None)
    assert called[0] == operation


def test_build_casts_outputs_to_f32_and_omits_absent_ones() -> None:
    class Network:
        hp = HP
        outputs: Any = None

        def build(self, forward: ForwardContext) -> Any:
            return forward.ctx.new(F16, (8, 1)) if self.outputs else None

    network = Network()
    execution: Any = context().execution
    assert build(network, execution, BatchShape(4, 0, 256)).outputs is None
    network.outputs = True
    outputs = build(network, execution, BatchShape(4, 1, 256)).outputs
    assert outputs is not None
    assert (outputs.type, outputs.name) == (F32, "outputs")
