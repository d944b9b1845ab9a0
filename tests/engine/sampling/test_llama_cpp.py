"""llama.cpp's names of the sampling steps."""

from __future__ import annotations

import pytest

from engine.sampling.llama_cpp import STEPS, step_name, steps_of, steps_of_text
from engine.types import InferenceParameters

# What llama.cpp of October 2026 runs unless it is told otherwise, as its server's README has it.
LLAMA_CPP = "edskypmxt"


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("nucleus", "top_p"),
        ("top-k", "top_k"),
        ("topk", "top_k"),
        ("typ", "typ_p"),
        ("typ-p", "typ_p"),
        ("temp", "temperature"),
        ("DRY", "dry"),
        ("top-n-sigma", "top_n_sigma"),
        (" min_p", "min_p"),
        ("magic", None),
        ("", None),
    ],
)
def test_other_names_of_a_step_are_known(name: str, step: str | None) -> None:
    assert step_name(name) == step


def test_the_default_order_matches_that_of_llama_cpp_with_our_two_steps() -> None:
    default = InferenceParameters().samplers
    assert [step for step in default if step not in ("tfs_z", "top_a")] == list(steps_of(LLAMA_CPP)[0])
    assert list(default) == [step for step in STEPS if step != "adaptive_p"]


def test_steps_keep_the_order_of_their_names_and_letters() -> None:
    assert steps_of(["temp", "k", "magic", "top_k"]) == (("temperature", "top_k", "top_k"), ["magic"])
    assert steps_of("ti") == (("temperature",), ["i"])


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("temperature; top-k;", ("temperature", "top_k")),
        ("temp", ("temperature",)),  # a name, though its letters are letters of steps, too
        ("mk", ("min_p", "top_k")),
        ("", ()),
    ],
)
def test_text_of_names_or_letters_is_parsed(text: str, steps: tuple[str, ...]) -> None:
    assert steps_of_text(text) == (steps, [])


def test_text_with_unknown_steps_is_reported() -> None:
    assert steps_of_text("top_k;magic") == (("top_k",), ["magic"])
    assert steps_of_text("kq") == ((), ["kq"])


def test_every_step_parameter_is_in_the_python_api() -> None:
    assert all(hasattr(InferenceParameters(), name) for fields in STEPS.values() for name in fields)
