"""Sampling parameters as flags."""

from __future__ import annotations

import argparse

import pytest

from engine.types import InferenceParameters
from server.cli.generation_options import SAMPLING, add_sampling_options, requested_sampling


def requested(*arguments: str) -> dict[str, object]:
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--other", default=1)
    add_sampling_options(parser)
    return requested_sampling(parser.parse_args(arguments))


def test_every_name_is_a_parameter_of_the_engine() -> None:
    assert set(SAMPLING) <= set(InferenceParameters.__struct_fields__)


def test_unused_flags_leave_the_models_defaults() -> None:
    assert requested() == {}


def test_flags_have_the_types_of_their_parameters() -> None:
    fields = requested("-n", "5", "--top-k", "3", "--temperature", "1", "--ignore-eos")
    assert fields == {"max_tokens": 5, "top_k": 3, "temperature": 1.0, "ignore_eos": True}
    assert [type(value) for value in fields.values()].count(float) == 1
    with pytest.raises(argparse.ArgumentError, match=r"invalid int value: '1\.5'"):
        requested("--top-k", "1.5")


def test_samplers_and_dry_breakers_are_lists() -> None:
    breakers = ("--dry-sequence-breaker", "a", "--dry-sequence-breaker", "b;")
    fields = requested("--samplers", "temp;top-k", *breakers)
    assert fields == {"samplers": ("temperature", "top_k"), "dry_sequence_breakers": ("a", "b;")}
    assert requested("--samplers", "kt") == {"samplers": ("top_k", "temperature")}
    with pytest.raises(argparse.ArgumentError, match="'magic' is not a sampler; expected one of"):
        requested("--samplers", "top_k;magic")


def test_minus_one_token_means_no_limit() -> None:
    assert requested("--max-tokens", "-1") == {"max_tokens": None}
