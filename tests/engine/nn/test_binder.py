"""Specs that are collected, and tensors that are bound."""

from __future__ import annotations

from typing import Any

from engine.nn.binder import Binder, TensorSpec


def test_specs_of_present_and_required_tensors_are_collected() -> None:
    binder = Binder({"a.weight", "a.bias", "norm.weight"}.__contains__)
    linear = binder.linear("a", 8, 4, 2)
    binder.layer_norm("norm", (8,), 1e-5, 2)  # without a bias
    assert binder.optional("absent", (1,), "add", 0) is None
    binder.tensor("missing", (8,), "mul", 3)  # the loader refuses a file without it
    assert linear.weight is None
    assert binder.specs == [
        TensorSpec("a.weight", (8, 4), "mul_mat", 2),
        TensorSpec("a.bias", (4,), "add", 2, optional=True),
        TensorSpec("norm.weight", (8,), "mul", 2),
        TensorSpec("missing", (8,), "mul", 3),
    ]


def test_a_tied_head_reads_the_embedding() -> None:
    tensors: dict[tuple[str, str], Any] = {
        ("token_embd.weight", "get_rows"): "rows",
        ("token_embd.weight", "mul_mat"): "matrix",
    }
    binder = Binder({"token_embd.weight"}.__contains__, tensors)
    assert binder.tensor("token_embd.weight", (8, 16), "get_rows", -1) == "rows"
    head = binder.linear("output", 8, 16, 1, fallback="token_embd")
    assert (head.weight, head.bias) == ("matrix", None)
    assert binder.specs[-1].fallback == "token_embd.weight"


def test_separate_head_is_preferred_to_the_embedding() -> None:
    tensors: dict[tuple[str, str], Any] = {("output.weight", "mul_mat"): "head"}
    binder = Binder({"output.weight", "token_embd.weight"}.__contains__, tensors)
    assert binder.linear("output", 8, 16, 1, fallback="token_embd").weight == "head"
