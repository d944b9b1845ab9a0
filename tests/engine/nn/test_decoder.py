"""The order of a decoder layer's parts, which rows its last layer computes, and the tensors of the frame."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from engine.graph.forward_context import LongRopeFactors
from engine.hparams import HParams, Rope
from engine.nn.binder import Binder
from engine.nn.decoder import Decoder, Layer
from engine.nn.hparams_reader import HParamsReader
from support.builders.hparams import hparams
from support.references.calculator import Calculator, Forward

X = np.random.default_rng(5).standard_normal((3, 4)).astype(np.float32)
HP = hparams()


def scaled(factor: float) -> Any:
    """A block or a norm that multiplies, so that the order of all parts shows in the result."""
    return lambda forward, x: getattr(forward, "ctx", forward).scale(x, factor)


def run(layer: Layer, *, outputs: list[int] | None = None) -> np.ndarray:
    c = Calculator()
    expected = None if outputs is None else c.input(np.array(outputs, np.int32))
    forward: Any = Forward(c.ctx, expected)
    out = layer(forward, c.input(X), last=outputs is not None)
    return c.compute(out)[0, 0]


def test_layer_adds_attention_then_feed_forward() -> None:
    out = run(Layer(attention=scaled(2), ffn=scaled(3)))
    np.testing.assert_allclose(out, X * 3 * 4, rtol=1e-6)  # x + 2x, then + 3 times that


def test_layer_norms_the_input_and_output_of_a_block() -> None:
    norms = {"attn_norm": 5, "attn_post_norm": 7, "ffn_norm": 11, "ffn_post_norm": 13}
    out = run(Layer(attention=scaled(2), ffn=scaled(3), **{k: scaled(v) for k, v in norms.items()}))
    np.testing.assert_allclose(out, X * (1 + 5 * 2 * 7) * (1 + 11 * 3 * 13), rtol=1e-6)


@pytest.mark.parametrize(("ffn_norm", "entry"), [(None, 5), (11, 11)])
def test_parallel_layer_feeds_both_blocks_from_the_normed_input(ffn_norm: int | None, entry: int) -> None:
    """Without a norm of its own the feed-forward network shares that of attention."""
    norm = None if ffn_norm is None else scaled(ffn_norm)
    parts = {"attention": scaled(2), "ffn": scaled(3), "attn_norm": scaled(5), "ffn_norm": norm}
    out = run(Layer(**parts, parallel=True))
    np.testing.assert_allclose(out, X * (1 + 5 * 2 + entry * 3), rtol=1e-6)


@pytest.mark.parametrize("parallel", [False, True])
def test_last_layer_computes_only_rows_with_outputs(parallel: bool) -> None:
    layer = Layer(attention=scaled(2), ffn=scaled(3), attn_norm=scaled(5), parallel=parallel)
    np.testing.assert_allclose(run(layer, outputs=[2, 0]), run(layer)[[2, 0]], rtol=1e-6)


def test_layer_without_requested_rows_ends_at_attention() -> None:
    none: Any = lambda forward, x: None  # noqa: E731
    c = Calculator()
    forward: Any = Forward(c.ctx)
    assert Layer(attention=none, ffn=none)(forward, c.input(X), last=True) is None


class Frame(Decoder):
    """A decoder whose layers have no tensors."""

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        return HP

    def layer(self, binder: Binder, i: int) -> Layer:
        return Layer(attention=scaled(1), ffn=scaled(1))


def names(hp: HParams, *, has: Any = lambda name: True, **options: Any) -> list[str]:
    binder = Binder(has)
    type("Model", (Frame,), options)(hp).bind(binder)
    return [spec.name for spec in binder.specs if spec.name.endswith(".weight")]


def test_bind_names_only_tensors_that_the_model_has() -> None:
    plain = ["token_embd.weight", "output_norm.weight", "output.weight"]
    assert names(HP) == plain
    learned = names(replace(HP, max_positions=32), norms_embedding=True, norms="layer")
    assert learned == ["token_embd.weight", "position_embd.weight", "token_embd_norm.weight", *plain[1:]]


def test_rope_factors_of_a_long_context_are_two_required_tensors() -> None:
    rope = Rope(mode="neox", n_dims=4)
    long = replace(HP, rope=rope, original_context_length=16)
    assert names(long, has=lambda name: False)[1:3] == [
        "rope_factors_short.weight",
        "rope_factors_long.weight",
    ]
    assert isinstance(Frame(long).rope_factors(Binder(lambda name: False)), LongRopeFactors)
    assert names(replace(HP, rope=rope))[1] == "rope_freqs.weight"
    assert "rope_freqs.weight" not in names(replace(HP, rope=rope), has=lambda name: False)
