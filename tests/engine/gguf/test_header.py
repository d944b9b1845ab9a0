"""Headers: every type of value, and what claims more than there is or is allowed nowhere."""

import math
import os
import struct
import tracemalloc

import pytest

from engine.errors import ModelError
from engine.gguf import GGUFFile, ValueType
from support.builders.gguf import (
    ARRAY,
    BOOL,
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    STRING,
    U8,
    U16,
    U32,
    U64,
    GGUFBuilder,
    string,
    tiny_llama,
)
from support.refusals import refused

HUGE = (1 << 63, (1 << 64) - 1, (1 << 63) - 1, 1 << 62, 1 << 40, (1 << 64) - 8)


def array(kind: int, n: int, body: bytes = b"") -> bytes:
    return struct.pack("<IIQ", ARRAY, kind, n) + body


@pytest.mark.parametrize("n", HUGE)
def test_count_beyond_the_file_is_refused(tmp_path, n):
    b = tiny_llama()
    assert f"claims {n} keys" in refused(b.write(tmp_path / "k.gguf", n_keys=n))
    assert f"claims {n} tensors" in refused(b.write(tmp_path / "t.gguf", n_tensors=n))


@pytest.mark.parametrize("n", HUGE)
@pytest.mark.parametrize("kind", [U8, F32, BOOL, STRING])
def test_array_beyond_the_file_is_refused(tmp_path, n, kind):
    b = tiny_llama().raw("x", array(kind, n, b"abc"))
    assert f"key 'x' claims {n} array elements" in refused(b.write(tmp_path / "m.gguf"))


@pytest.mark.parametrize("kind", [U8, F32, BOOL, STRING])
def test_array_slightly_beyond_the_file_is_refused(tmp_path, kind):
    b = GGUFBuilder().raw("x", array(kind, 100, bytes(99)))
    assert "truncated or corrupt: key 'x'" in refused(b.write(tmp_path / "m.gguf"))


@pytest.mark.parametrize("n", [*HUGE, 10_000])
def test_string_beyond_the_file_is_refused(tmp_path, n):
    length = struct.pack("<Q", n)
    in_value = GGUFBuilder().raw("x", struct.pack("<I", STRING) + length)
    assert "key 'x'" in refused(in_value.write(tmp_path / "v.gguf"))
    in_array = GGUFBuilder().raw("x", array(STRING, 3, string("a") + length + bytes(64)))
    assert "key 'x'" in refused(in_array.write(tmp_path / "a.gguf"))
    as_key = GGUFBuilder()
    as_key.extra_keys.append(length + bytes(64))
    assert "key 1 of 1" in refused(as_key.write(tmp_path / "k.gguf"))


def test_string_length_that_wraps_around_is_refused(tmp_path):
    """With 64-bit arithmetic this string would end before it begins, and the walk would never end."""
    b = GGUFBuilder().raw("x", array(STRING, 3, struct.pack("<Q", (1 << 64) - 8) * 3))
    assert "key 'x'" in refused(b.write(tmp_path / "m.gguf"))


def test_a_hostile_sparse_file_costs_little(tmp_path):
    """A terabyte that is not there: sizes that fit the file, but no header."""
    path = tmp_path / "m.gguf"
    cases = [
        GGUFBuilder().raw("x", struct.pack("<IQ", STRING, 1 << 38)).build(),
        GGUFBuilder().raw("x", array(STRING, 1 << 20, struct.pack("<Q", 1 << 30))).build(),
        GGUFBuilder().raw("x", array(STRING, 1 << 37)).build(),
        GGUFBuilder().raw("x", array(F32, 1 << 37)).build(),
        GGUFBuilder().build(n_keys=1 << 35),
        GGUFBuilder().build(n_tensors=1 << 34),
        GGUFBuilder().key("x", "y").build(n_keys=60_000),
        GGUFBuilder().key("x", "y").build(n_tensors=60_000),
    ]
    for data in cases:
        path.write_bytes(data)
        os.truncate(path, 1 << 40)
        tracemalloc.start()
        try:
            refused(path)
            assert tracemalloc.get_traced_memory()[1] < 8 << 20
        finally:
            tracemalloc.stop()


def test_total_length_of_arrays_is_limited(tmp_path):
    b = GGUFBuilder()
    for i in range(6):
        b.raw(f"x.{i}", array(U8, 1 << 21, bytes(1 << 21)))
    assert "the arrays up to here have" in refused(b.write(tmp_path / "m.gguf"))


def test_open_of_a_duplicate_key_is_refused(tmp_path):
    b = GGUFBuilder().key("x", 1)
    b.extra_keys.append(string("x") + struct.pack("<II", U32, 2))
    assert refused(b.write(tmp_path / "m.gguf")) == "key 'x' occurs twice"


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (b"", "has 0 bytes; expected 1 to 65535"),
        (b"k" * 65536, "has 65536 bytes"),
        (b"a\0b", "has control characters"),
        (b"\x1b[31m", "has control characters"),
        ("\u202eabc".encode(), "has control characters"),
        (b"\xff\xfe", "is not UTF-8"),
    ],
)
def test_open_of_an_invalid_key_is_refused(tmp_path, key, reason):
    b = GGUFBuilder()
    b.extra_keys.append(string(key) + struct.pack("<II", U32, 2))
    assert f"key 1 of 1 {reason}" in refused(b.write(tmp_path / "m.gguf"))


@pytest.mark.parametrize("number", [13, 255, 1 << 31, (1 << 32) - 1])
def test_unknown_value_type_is_refused(tmp_path, number):
    b = GGUFBuilder().raw("x", struct.pack("<IQ", number, 0))
    assert refused(b.write(tmp_path / "a.gguf")) == f"key 'x' has the unknown value type {number}"
    b = GGUFBuilder().raw("x", array(number, 0))
    assert refused(b.write(tmp_path / "b.gguf")) == f"key 'x' has the unknown value type {number}"


def test_open_of_nested_arrays_is_refused(tmp_path):
    deep = array(ARRAY, 1) + b"".join(struct.pack("<IQ", ARRAY, 1) for _ in range(100_000))
    b = GGUFBuilder().raw("x", deep)
    assert "array of arrays" in refused(b.write(tmp_path / "m.gguf"))


def test_open_of_a_bool_beyond_1_is_refused(tmp_path):
    b = GGUFBuilder().raw("x", struct.pack("<IB", BOOL, 2))
    assert refused(b.write(tmp_path / "a.gguf")) == "key 'x' is a bool of value 2; expected 0 or 1"
    b = GGUFBuilder().raw("x", array(BOOL, 5, b"\0\1\xff\1\0"))
    assert refused(b.write(tmp_path / "b.gguf")) == "key 'x' is a bool of value 255; expected 0 or 1"


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (U8, [0, 255]),
        (I8, [-128, 127]),
        (U16, [0, 65535]),
        (I16, [-32768, 32767]),
        (I32, [-(2**31), 2**31 - 1]),
        (U64, [0, 2**64 - 1]),
        (I64, [-(2**63), 2**63 - 1]),
        (F64, [0.1, -1e300, math.inf]),
        (BOOL, [False, True]),
    ],
)
def test_every_value_type_is_read(tmp_path, kind, values):
    b = GGUFBuilder()
    b.key("array", values, kind).key("none", [], kind)
    for i, value in enumerate(values):
        b.key(f"scalar.{i}", value, kind)
    with GGUFFile.open(b.write(tmp_path / "v.gguf")) as gguf:
        assert gguf.metadata["array"] == values
        assert gguf.metadata["none"] == []
        assert [gguf.metadata[f"scalar.{i}"] for i in range(len(values))] == values
        assert gguf.value_type("array") == (ValueType(kind), len(values))
        assert gguf.value_type("scalar.0") == (ValueType(kind), None)
        assert gguf.value_type("absent") is None


def test_open_of_a_header_longer_than_one_read_is_complete(tmp_path):
    """Longer than the first read, with strings that lie across its end."""
    words = [f"word {i} " + "x" * (i % 97) for i in range(40_000)]
    b = GGUFBuilder().key("a", words).key("b", list(range(1000)), I32).key("c", "y" * 3_000_000).key("d", 7)
    b.tensor("t", (2,), data=b"12345678")
    with GGUFFile.open(b.write(tmp_path / "v.gguf")) as gguf:
        assert gguf.metadata["a"] == words
        assert gguf.metadata["b"] == list(range(1000))
        assert len(gguf.get_str("c")) == 3_000_000
        assert gguf.get_int("d") == 7
        assert bytes(gguf.data(gguf.tensors["t"])) == b"12345678"


def test_text_that_is_not_utf8_fails_when_it_is_read(tmp_path):
    """A file is not refused for a broken description that nobody asks for."""
    b = GGUFBuilder().key("name", b"\xff\xfe", 8).key("words", ["ok", b"\xe2\x82"], 8).key("i", 1)
    with GGUFFile.open(b.write(tmp_path / "v.gguf")) as gguf:
        assert gguf.get_int("i") == 1
        with pytest.raises(ModelError, match="key 'name' is not UTF-8: "):
            gguf.get_str("name")
        with pytest.raises(ModelError, match="key 'words' is not UTF-8 at index 1: "):
            gguf.metadata["words"]


def test_head_of_an_array_decodes_only_its_beginning(tmp_path):
    words = ["a", "b", b"\xff"]
    with GGUFFile.open(GGUFBuilder().key("w", words, STRING).key("i", 3).write(tmp_path / "v.gguf")) as gguf:
        assert gguf.metadata.head("w", 2) == ["a", "b"]
        assert gguf.metadata.head("i", 2) == 3
        with pytest.raises(ModelError, match="not UTF-8 at index 2"):
            gguf.metadata.head("w", 9)
