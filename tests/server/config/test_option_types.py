"""How option values are parsed."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from server.config import option_types as types


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("all", "all"),
        (" ALL ", "all"),
        ("12", 12),
        (0, 0),
        (True, None),
        ("-1", None),
        ("x", None),
        (None, None),
    ],
)
def test_word_or_number_takes_its_words_and_non_negative_numbers(value, expected):
    from typing import Annotated, Any

    adapter = TypeAdapter(Annotated[Any, types.word_or_number("all", "auto")])
    if expected is not None:
        assert adapter.validate_python(value) == expected
    else:
        with pytest.raises(ValidationError, match=r"must be a number \(0 or more\) or all or auto"):
            adapter.validate_python(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("auto", "auto"), (" True ", True), ("1", True), ("off", False), ("no", False), (True, True)],
)
def test_true_false_or_auto_are_accepted(value, expected):
    assert types.true_false_auto(value) == expected


def test_other_words_than_true_false_or_auto_are_refused():
    with pytest.raises(ValueError, match="must be auto, true or false"):
        types.true_false_auto("maybe")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a, b,,c ", ["a", "b", "c"]),
        ('["a,b", "c"]', ["a,b", "c"]),
        ("", []),
        (["a,b"], ["a,b"]),
    ],
)
def test_lists_are_json_or_separated_by_commas(value, expected):
    assert types.split(value) == expected


def test_a_broken_json_list_is_refused():
    with pytest.raises(ValueError, match="is not a valid JSON list"):
        types.split("[1,")


@pytest.mark.parametrize("value", ["3,1", ["3", "1"], ["3,1"], [3, 1]])
def test_numbers_are_read_from_lists_and_comma_separated_text(value):
    assert [float(x) for x in types.numbers(value)] == [3.0, 1.0]


def test_a_mapping_is_a_list_of_name_and_value():
    assert types.named({"a": "x.gguf", "b": 1}) == ["a=x.gguf", "b=1"]
    assert types.named("a=x,b=y") == ["a=x", "b=y"]


def test_yaml_booleans_are_on_and_off():
    assert [types.on_off(value) for value in (True, False, "auto")] == ["on", "off", "auto"]


@pytest.mark.parametrize("value", ["host", "host:", ":1", "host:0", "host:65536", "host:x"])
def test_an_address_needs_host_and_port(value):
    with pytest.raises(ValueError, match="must be HOST:PORT"):
        types.address(value)


@pytest.mark.parametrize("value", ["host:1", "::1:65535", "10.0.0.1:50052"])
def test_valid_address_is_accepted(value):
    assert types.address(value) == value


@pytest.mark.parametrize(
    ("text", "value"), [("0", 0), ("512", 512), ("1k", 1024), ("1.5M", 1572864), ("24G", 24 << 30), (5, 5)]
)
def test_sizes_take_units(text, value):
    assert types.nbytes(text) == value


@pytest.mark.parametrize("text", ["", "G", "1X", "nan", "inf", "1 2"])
def test_invalid_size_is_refused(text):
    with pytest.raises(ValueError, match="must be a number of bytes such as 24G"):
        types.nbytes(text)
