"""llama.cpp's names of the sampling steps."""

from __future__ import annotations

import pytest

from engine.sampling.llama_cpp import OTHER_STEPS, STEPS, in_order, neutral_values, step_name
from engine.types import InferenceParameters


@pytest.mark.parametrize(
    ("name", "step"),
    [("nucleus", "top_p"), ("top-k", "top_k"), ("typ", "typ_p"), ("temp", "temperature"), ("dry", "dry")],
)
def test_other_names_of_a_step_are_known(name: str, step: str) -> None:
    assert step_name(name) == step
    assert step in {*STEPS, *OTHER_STEPS}


def test_an_unknown_name_stays_as_it_is() -> None:
    assert step_name("magic") == "magic"


def test_neutral_values_are_those_of_the_python_api() -> None:
    values = neutral_values([])
    assert values == {name: getattr(InferenceParameters(), name) for name in values}
    assert neutral_values(["top_k", "magic"]) == {k: v for k, v in values.items() if k != "top_k"}


def test_the_order_is_that_of_the_steps_that_we_have() -> None:
    assert in_order(["penalties", "dry", "top_k", "temperature"])
    assert not in_order(["temperature", "top_k"])
