"""Sampling values that a model file recommends."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.gguf import GGUFFile
from engine.model.file_sampling import file_sampling
from support.builders.gguf import tiny_llama

UINT32, INT32, FLOAT32 = 4, 5, 6
ALL = {
    "temp": (0.6, FLOAT32),
    "top_k": (20, INT32),
    "top_p": (0.9, FLOAT32),
    "min_p": (0.01, FLOAT32),
    "xtc_probability": (0.5, FLOAT32),
    "xtc_threshold": (0.2, FLOAT32),
    "penalty_last_n": (128, INT32),
    "penalty_repeat": (1.05, FLOAT32),
    "mirostat": (2, INT32),
    "mirostat_tau": (4.0, FLOAT32),
    "mirostat_eta": (0.2, FLOAT32),
}


def read(tmp_path: Path, **keys: object) -> tuple[dict[str, object], list[str]]:
    builder = tiny_llama()
    for key, value in keys.items():
        kind = value[1] if isinstance(value, tuple) else None
        builder.key(f"general.sampling.{key}", value[0] if isinstance(value, tuple) else value, kind)
    with GGUFFile.open(builder.write(tmp_path / "model.gguf")) as gguf:
        return file_sampling(gguf)


def test_every_sampling_key_of_llama_cpps_converter_is_read(tmp_path: Path) -> None:
    assert read(tmp_path, **ALL) == (
        {
            "temperature": 0.6,  # not 0.60000002, the nearest float32
            "top_k": 20,
            "top_p": 0.9,
            "min_p": 0.01,
            "xtc_probability": 0.5,
            "xtc_threshold": 0.2,
            "repeat_last_n": 128,
            "repeat_penalty": 1.05,
            "mirostat": 2,
            "mirostat_tau": 4.0,
            "mirostat_eta": 0.2,
        },
        [],
    )


def test_a_file_without_the_keys_recommends_nothing(tmp_path: Path) -> None:
    assert read(tmp_path) == ({}, [])


def test_integers_may_stand_for_floats_and_minus_one_for_off(tmp_path: Path) -> None:
    assert read(tmp_path, temp=(1, UINT32), top_k=(-1, INT32))[0] == {"temperature": 1.0, "top_k": 0}


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"temp": (1e9, FLOAT32)}, "temp has no effect: temperature must lie between 0 and 100"),
        ({"temp": (float("nan"), FLOAT32)}, "temp has no effect: key 'general.sampling.temp' is nan"),
        ({"top_p": "much"}, "top_p has no effect: key 'general.sampling.top_p' is"),
        ({"top_k": (40.0, FLOAT32)}, "top_k has no effect: key 'general.sampling.top_k' is"),
        ({"xtc_probability": (1.5, FLOAT32)}, "xtc_probability has no effect: xtc_probability must lie"),
        ({"sequence": "top_k;" * 17}, "sequence has no effect: it names 17 steps"),
    ],
)
def test_invalid_value_has_no_effect_and_is_noted(
    tmp_path: Path, keys: dict[str, object], reason: str
) -> None:
    values, remarks = read(tmp_path, min_p=(0.1, FLOAT32), **keys)
    assert values == {"min_p": 0.1}
    assert len(remarks) == 1
    assert remarks[0].startswith(f"general.sampling.{reason}")


def test_sequence_key_determines_the_steps_and_their_order(tmp_path: Path) -> None:
    values, remarks = read(tmp_path, sequence="temp;top-k;dry;xtc", top_p=(0.9, FLOAT32))
    assert values == {"top_p": 0.9, "samplers": ("temperature", "top_k", "dry", "xtc")}
    assert remarks == []


def test_an_unknown_step_is_named(tmp_path: Path) -> None:
    values, remarks = read(tmp_path, sequence="temperature;magic")
    assert values == {"samplers": ("temperature",)}
    assert remarks == ["general.sampling.sequence: 'magic' is not supported"]
