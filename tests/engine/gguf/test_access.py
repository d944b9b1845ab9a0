"""Typed reads of keys, and refusals that name the key."""

import math

import pytest

from engine.errors import ModelError
from engine.gguf import GGUFFile
from support.builders.gguf import BOOL, I32, GGUFBuilder


def test_getters_of_each_type_read_values_and_defaults(tmp_path):
    b = GGUFBuilder().key("i", 3).key("f", 0.5).key("s", "text").key("b", True)
    b.key("ints", [1, 2, 3], I32).key("floats", [0.5, 1.0]).key("bools", [True, False], BOOL).key(
        "strs", ["a"]
    )
    with GGUFFile.open(b.write(tmp_path / "v.gguf")) as gguf:
        assert (gguf.get_int("i"), gguf.get_float("f"), gguf.get_str("s"), gguf.get_bool("b")) == (
            3,
            0.5,
            "text",
            True,
        )
        assert gguf.get_float("i") == 3.0
        assert isinstance(gguf.get_float("i"), float)
        assert gguf.get_ints("ints") == gguf.get_ints("ints", 3) == [1, 2, 3]
        assert gguf.get_ints("i", 4) == [3, 3, 3, 3]
        assert gguf.get_ints("i") == [3]
        assert gguf.get_floats("floats", 2) == [0.5, 1.0]
        assert gguf.get_bools("bools") == [True, False]
        assert gguf.get_bools("b", 2) == [True, True]
        assert gguf.get_strs("strs") == ["a"]
        assert gguf.get_int("i", min=3, max=3) == 3
        # defaults are handed through as they are
        assert gguf.get_int("no", None) is None
        assert gguf.get_int("no", -1, min=0) == -1
        assert gguf.get_ints("no", 2, [1]) == [1]
        assert gguf.get_strs("no", None, None) is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: g.get_int("no"), "key 'no' is missing"),
        (lambda g: g.get_str("no"), "key 'no' is missing"),
        (lambda g: g.get_ints("no"), "key 'no' is missing"),
        (lambda g: g.get_int("f"), "key 'f' is float32; it must be an integer"),
        (lambda g: g.get_int("b"), "key 'b' is bool; it must be an integer"),
        (lambda g: g.get_int("ints"), "key 'ints' is array of 3 int32; it must be an integer"),
        (lambda g: g.get_float("s"), "key 's' is string; it must be a number"),
        (lambda g: g.get_bool("i"), "key 'i' is uint32; it must be a bool"),
        (lambda g: g.get_str("i"), "key 'i' is uint32; it must be a string"),
        (
            lambda g: g.get_ints("strs"),
            "key 'strs' is array of 1 string; it must be an integer or an array of them",
        ),
        (lambda g: g.get_ints("ints", 2), "key 'ints' has 3 elements; expected 2"),
        (lambda g: g.get_ints("ints", min=2), "key 'ints' is 1; it must be at least 2"),
        (lambda g: g.get_ints("ints", max=2), "key 'ints' is 3; it must be at most 2"),
        (lambda g: g.get_int("i", max=2), "key 'i' is 3; it must be at most 2"),
        (lambda g: g.get_strs("s"), "key 's' is string; it must be an array of strings"),
        (lambda g: g.get_strs("ints"), "key 'ints' is array of 3 int32; it must be an array of strings"),
        (lambda g: g.get_float("nan"), "key 'nan' is nan; it must be finite"),
        (lambda g: g.get_floats("infs"), "key 'infs' is -inf; it must be finite"),
    ],
)
def test_getters_of_another_type_or_range_name_the_key(tmp_path, call, message):
    b = GGUFBuilder().key("i", 3).key("f", 0.5).key("s", "text").key("b", True).key("nan", math.nan)
    b.key("ints", [1, 2, 3], I32).key("strs", ["a"]).key("infs", [1.0, -math.inf])
    path = b.write(tmp_path / "v.gguf")
    with GGUFFile.open(path) as gguf, pytest.raises(ModelError) as caught:
        call(gguf)
    assert str(caught.value) == f"{path}: {message}"
