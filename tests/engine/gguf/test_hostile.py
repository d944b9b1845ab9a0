"""Files made by hand to hurt: each is refused with a ModelError that names the file and the reason."""

import os
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from engine.errors import ModelError
from engine.gguf import GGUFFile
from support.builders.gguf import ARRAY, BOOL, F32, I32, STRING, U8, U32, GGUFBuilder, string, tiny_llama

HUGE = (1 << 63, (1 << 64) - 1, (1 << 63) - 1, 1 << 62, 1 << 40, (1 << 64) - 8)


def refused(path: Path) -> str:
    """Opens a file that must be refused; returns the reason."""
    with pytest.raises(ModelError) as caught:
        GGUFFile.open(path)
    message = str(caught.value)
    assert type(caught.value) is ModelError
    assert "\n" not in message
    assert message.isprintable()
    assert message.startswith(str(path) + ": ")
    return message.removeprefix(str(path) + ": ")


def array(kind: int, n: int, body: bytes = b"") -> bytes:
    return struct.pack("<IIQ", ARRAY, kind, n) + body


# -- what is not a GGUF file ----------------------------------------


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty (0 bytes)"),
        (b"G", "is not a GGUF file"),
        (b"GGUF", "truncated or corrupt: the version would end at byte 8, but the file has 4"),
        (b"GGUF\3\0\0\0", "truncated or corrupt: the number of tensors would end"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "a Git LFS pointer"),
        (b"<!DOCTYPE html><html><head><title>Login", "a web page"),
        (b"\n  <html>", "a web page"),
        (b'{"error":"Entry not found"}', "JSON text"),
        (struct.pack("<Q", 40) + b'{"__metadata__":{}}', "a safetensors file"),
        (b"PK\x03\x04aaaaaaaaaaa", "a zip archive or a PyTorch checkpoint"),
        (b"tjgg\3\0\0\0", "a GGJT file (pre-GGUF)"),
        (b"\x1f\x8b\x08", "compressed with gzip"),
        (bytes(100), "filled with zeros"),
        (b"hello world", "it begins with 'hell'"),
        (b"\x1b[2J\x07", "it begins with '\\x1b[2J'"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "GGUF version 1 is no longer supported"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "is a big-endian GGUF file"),
        (b"GGUF" + struct.pack("<IQQ", 0, 0, 0), "GGUF version 0 is unknown"),
        (b"GGUF" + struct.pack("<IQQ", 4, 0, 0), "GGUF version 4 is unknown"),
    ],
)
def test_not_a_gguf_file(tmp_path, content, reason):
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    assert reason in refused(path)


def test_directory(tmp_path):
    assert refused(tmp_path).startswith("is a directory")


def test_missing(tmp_path):
    assert refused(tmp_path / "no.gguf") == "cannot be opened: No such file or directory"


def test_symlink_loop(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert "symbolic links" in refused(tmp_path / "a")


def test_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "p")
    assert refused(tmp_path / "p") == "is not a regular file"


def test_no_permission(tmp_path):
    """In a process that gives up root's rights, should the tests run as root."""
    path = tiny_llama().write(tmp_path / "m.gguf")
    path.chmod(0)
    code = (
        "import os, sys\n"
        "from engine.gguf import GGUFFile\n"
        "from engine.errors import ModelError\n"
        "if os.geteuid() == 0: os.setgroups([]); os.setuid(65534)\n"
        "try: GGUFFile.open(sys.argv[1])\n"
        "except ModelError as error: print(error)\n"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code, path], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{path}: cannot be opened: Permission denied\n"


@pytest.mark.parametrize("name", ["a\nb.gguf", "\x1b[31m.gguf", "\u202efugg.gguf", "\udcff.gguf"])
def test_paths_are_shown_without_control_characters(tmp_path, name):
    with pytest.raises(ModelError) as caught:
        GGUFFile.open(tmp_path / name)
    assert str(caught.value).isprintable()


def test_nul_in_path():
    with pytest.raises(ModelError, match="cannot be opened: embedded null"):
        GGUFFile.open("a\0b")


def test_split_of_one_is_whole(tmp_path):
    GGUFFile.open(tiny_llama().key("split.count", 1).write(tmp_path / "m.gguf")).close()


# -- counts and lengths ----------------------------------------


@pytest.mark.parametrize("n", HUGE)
def test_counts_beyond_the_file(tmp_path, n):
    b = tiny_llama()
    assert f"claims {n} keys" in refused(b.write(tmp_path / "k.gguf", n_keys=n))
    assert f"claims {n} tensors" in refused(b.write(tmp_path / "t.gguf", n_tensors=n))


@pytest.mark.parametrize("n", HUGE)
@pytest.mark.parametrize("kind", [U8, F32, BOOL, STRING])
def test_arrays_beyond_the_file(tmp_path, n, kind):
    b = tiny_llama().raw("x", array(kind, n, b"abc"))
    assert f"key 'x' claims {n} array elements" in refused(b.write(tmp_path / "m.gguf"))


@pytest.mark.parametrize("kind", [U8, F32, BOOL, STRING])
def test_arrays_a_little_beyond_the_file(tmp_path, kind):
    b = GGUFBuilder().raw("x", array(kind, 100, bytes(99)))
    assert "truncated or corrupt: key 'x'" in refused(b.write(tmp_path / "m.gguf"))


@pytest.mark.parametrize("n", [*HUGE, 10_000])
def test_strings_beyond_the_file(tmp_path, n):
    length = struct.pack("<Q", n)
    in_value = GGUFBuilder().raw("x", struct.pack("<I", STRING) + length)
    assert "key 'x'" in refused(in_value.write(tmp_path / "v.gguf"))
    in_array = GGUFBuilder().raw("x", array(STRING, 3, string("a") + length + bytes(64)))
    assert "key 'x'" in refused(in_array.write(tmp_path / "a.gguf"))
    as_key = GGUFBuilder()
    as_key.extra_keys.append(length + bytes(64))
    assert "key 1 of 1" in refused(as_key.write(tmp_path / "k.gguf"))


def test_string_length_that_wraps_back_into_the_file(tmp_path):
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


def test_arrays_add_up(tmp_path):
    b = GGUFBuilder()
    for i in range(6):
        b.raw(f"x.{i}", array(U8, 1 << 21, bytes(1 << 21)))
    assert "the arrays up to here have" in refused(b.write(tmp_path / "m.gguf"))


# -- keys and values ----------------------------------------


def test_duplicate_key(tmp_path):
    b = GGUFBuilder().key("x", 1)
    b.extra_keys.append(string("x") + struct.pack("<II", U32, 2))
    assert refused(b.write(tmp_path / "m.gguf")) == "key 'x' occurs twice"


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (b"", "has 0 bytes; allowed are 1 to 65535"),
        (b"k" * 65536, "has 65536 bytes"),
        (b"a\0b", "has control characters"),
        (b"\x1b[31m", "has control characters"),
        ("\u202eabc".encode(), "has control characters"),
        (b"\xff\xfe", "is not UTF-8"),
    ],
)
def test_bad_key(tmp_path, key, reason):
    b = GGUFBuilder()
    b.extra_keys.append(string(key) + struct.pack("<II", U32, 2))
    assert f"key 1 of 1 {reason}" in refused(b.write(tmp_path / "m.gguf"))


@pytest.mark.parametrize("number", [13, 255, 1 << 31, (1 << 32) - 1])
def test_unknown_value_type(tmp_path, number):
    b = GGUFBuilder().raw("x", struct.pack("<IQ", number, 0))
    assert refused(b.write(tmp_path / "a.gguf")) == f"key 'x' has the unknown value type {number}"
    b = GGUFBuilder().raw("x", array(number, 0))
    assert refused(b.write(tmp_path / "b.gguf")) == f"key 'x' has the unknown value type {number}"


def test_nested_arrays(tmp_path):
    deep = array(ARRAY, 1) + b"".join(struct.pack("<IQ", ARRAY, 1) for _ in range(100_000))
    b = GGUFBuilder().raw("x", deep)
    assert "array of arrays" in refused(b.write(tmp_path / "m.gguf"))


def test_bool_values(tmp_path):
    b = GGUFBuilder().raw("x", struct.pack("<IB", BOOL, 2))
    assert refused(b.write(tmp_path / "a.gguf")) == "key 'x' is a bool of value 2; allowed are 0 and 1"
    b = GGUFBuilder().raw("x", array(BOOL, 5, b"\0\1\xff\1\0"))
    assert refused(b.write(tmp_path / "b.gguf")) == "key 'x' is a bool of value 255; allowed are 0 and 1"


@pytest.mark.parametrize("alignment", [0, 1, 3, 4, 24, 33, 1 << 25, 1 << 31, (1 << 32) - 1])
def test_bad_alignment(tmp_path, alignment):
    b = tiny_llama().key("general.alignment", alignment)
    assert refused(b.write(tmp_path / "m.gguf")).startswith(f"key 'general.alignment' is {alignment}; ")


@pytest.mark.parametrize("value", [(32.0, F32), ("32", STRING), (True, BOOL), (32, I32), ([32], U32)])
def test_alignment_of_a_wrong_type(tmp_path, value):
    b = tiny_llama().key("general.alignment", *value)
    assert refused(b.write(tmp_path / "m.gguf")).endswith("; it must be uint32")


# -- tensors ----------------------------------------


def test_duplicate_tensor(tmp_path):
    b = GGUFBuilder().tensor("a", (4,)).tensor("a", (4,))
    assert refused(b.write(tmp_path / "m.gguf")) == "tensor 'a' occurs twice"


@pytest.mark.parametrize("name", [b"", b"n" * 64, b"n" * 5000, b"a\0b", b"a\nb", b"\xc3"])
def test_bad_tensor_name(tmp_path, name):
    b = GGUFBuilder().tensor(name, (4,))
    assert refused(b.write(tmp_path / "m.gguf")).startswith("the name of tensor 1 of 1 ")


def test_longest_tensor_name(tmp_path):
    with GGUFFile.open(GGUFBuilder().tensor("n" * 63, (4,)).write(tmp_path / "m.gguf")) as gguf:
        assert list(gguf.tensors) == ["n" * 63]


@pytest.mark.parametrize("n_dims", [0, 5, 1 << 31, (1 << 32) - 1])
def test_bad_number_of_dimensions(tmp_path, n_dims):
    b = GGUFBuilder().tensor("a", (4,), n_dims=n_dims)
    assert refused(b.write(tmp_path / "m.gguf")) == f"tensor 'a' has {n_dims} dimensions; allowed are 1 to 4"


@pytest.mark.parametrize(
    "shape",
    [
        (0,),
        (4, 0),
        (1 << 63,),
        ((1 << 64) - 1,),
        (1 << 32, 1 << 31),
        (1 << 16, 1 << 16, 1 << 16, 1 << 16),  # the product is 0 in 64 bits
        (1 << 31, 3, 1 << 33),
        (32, (1 << 59) + 1),  # 32 elements too many for 64 bits
    ],
)
def test_impossible_shapes(tmp_path, shape):
    b = GGUFBuilder().tensor("a", shape, data=bytes(64))
    assert refused(b.write(tmp_path / "m.gguf")) == f"tensor 'a' has the impossible shape {list(shape)}"


def test_bytes_that_overflow_although_elements_do_not(tmp_path):
    b = GGUFBuilder().tensor("a", (1 << 31, 1 << 31), data=bytes(64))
    assert f"has {1 << 64} bytes" in refused(b.write(tmp_path / "m.gguf"))


@pytest.mark.parametrize(("kind", "n", "block"), [("Q4_0", 33, 32), ("Q8_0", 16, 32), ("Q4_K", 128, 256)])
def test_rows_that_are_no_whole_blocks(tmp_path, kind, n, block):
    b = GGUFBuilder().tensor("a", (n, 2), kind, data=bytes(4096))
    reason = refused(b.write(tmp_path / "m.gguf"))
    assert reason == f"tensor 'a' has rows of {n} elements; {kind} has blocks of {block}"


@pytest.mark.parametrize(("number", "name"), [(4, "Q4_2"), (5, "Q4_3"), (31, "Q4_0_4_4"), (38, "IQ4_NL_8_8")])
def test_removed_types(tmp_path, number, name):
    b = GGUFBuilder().tensor("a", (32,), type_number=number)
    assert f"has type {name}, which ggml dropped" in refused(b.write(tmp_path / "m.gguf"))


@pytest.mark.parametrize("number", [43, 100, 1 << 31, (1 << 32) - 1])
def test_unknown_types(tmp_path, number):
    b = GGUFBuilder().tensor("a", (32,), type_number=number)
    assert refused(b.write(tmp_path / "m.gguf")) == f"tensor 'a' has the unknown type {number}"


@pytest.mark.parametrize(
    ("offset", "reason"),
    [
        (1, "has offset 1, not a multiple of the alignment 32"),
        (128, "ends at byte"),
        (1 << 40, f"has 128 bytes at offset {1 << 40}, but the file has"),
        ((1 << 64) - 32, f"has 128 bytes at offset {(1 << 64) - 32}, but the file has"),
        (0, "corrupt: tensors 'a' and 'b' overlap"),
        (32, "corrupt: tensors 'a' and 'b' overlap"),
    ],
)
def test_bad_offsets(tmp_path, offset, reason):
    b = GGUFBuilder().tensor("a", (16,)).tensor("b", (32,), offset=offset, data=bytes(160))
    assert reason in refused(b.write(tmp_path / "m.gguf"))


def test_data_cut_short(tmp_path):
    b = GGUFBuilder().tensor("a", (16,)).tensor("b", (32,))
    path = b.write(tmp_path / "m.gguf")
    size = path.stat().st_size
    os.truncate(path, size - 1)
    assert refused(path).startswith(f"truncated or corrupt: tensor 'b' ends at byte {size}, ")


def test_tensors_in_another_order_and_with_gaps(tmp_path):
    b = GGUFBuilder().tensor("a", (8,), offset=128).tensor("b", (8,), offset=0, data=bytes(range(32)))
    b.blob += bytes(200)
    with GGUFFile.open(b.write(tmp_path / "m.gguf")) as gguf:
        assert bytes(gguf.data(gguf.tensors["a"])) == bytes(32)
