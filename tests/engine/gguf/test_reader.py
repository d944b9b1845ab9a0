"""Reading sound GGUF files."""

import errno
import math
import mmap
from pathlib import Path

import gguf as gguf_py
import numpy as np
import pytest

from engine.errors import ModelError
from engine.gguf import GGMLType, GGUFFile, ValueType, validate_model
from support.builders.gguf import BOOL, F64, I8, I16, I32, I64, U8, U16, U64, GGUFBuilder, tiny_llama

STORIES = Path(__file__).parents[3] / "models" / "stories.gguf"


def test_bundled_model():
    with GGUFFile.open(STORIES) as gguf:
        validate_model(gguf)
        assert (gguf.arch, gguf.version, gguf.alignment) == ("llama", 3, 32)
        assert gguf.get_int("llama.block_count") == 4
        assert len(gguf.metadata["tokenizer.ggml.tokens"]) == 2048
        info = gguf.tensors["blk.3.ffn_down.weight"]
        assert info.shape == (512, 256)
        assert info.type is GGMLType.Q8_0
        assert info.nbytes == 512 * 256 // 32 * 34
        assert info.offset + info.nbytes == gguf.file_size


def test_agrees_with_an_independent_reader():
    """gguf-py reads the same values, tensors and bytes out of the bundled model."""
    reader = gguf_py.GGUFReader(STORIES)
    with GGUFFile.open(STORIES) as gguf:
        theirs = {k: f.contents() for k, f in reader.fields.items() if not k.startswith("GGUF.")}
        assert dict(gguf.metadata) == theirs
        assert list(gguf.tensors) == [t.name for t in reader.tensors]
        for t in reader.tensors:
            info = gguf.tensors[t.name]
            assert (info.offset, info.nbytes, info.type.name) == (
                t.data_offset,
                t.n_bytes,
                t.tensor_type.name,
            )
            assert info.shape == tuple(t.shape.tolist())
            assert bytes(gguf.data(info)) == t.data.tobytes()


def test_agrees_with_an_independent_writer(tmp_path):
    path = tmp_path / "w.gguf"
    writer = gguf_py.GGUFWriter(path, "llama")
    writer.add_array("x.strings", ["a", "", "ü€𝄞"])
    writer.add_array("x.floats", [1.5, -2.0])
    writer.add_key_value("x.i64", -(2**40), gguf_py.GGUFValueType.INT64)
    weights = np.arange(64 * 3, dtype=np.float16).reshape(3, 64)
    writer.add_tensor("w", weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with GGUFFile.open(path) as gguf:
        assert gguf.metadata["x.strings"] == ["a", "", "ü€𝄞"]
        assert gguf.metadata["x.floats"] == [1.5, -2.0]
        assert gguf.get_int("x.i64") == -(2**40)
        assert gguf.tensors["w"].shape == (64, 3)
        assert bytes(gguf.data(gguf.tensors["w"])) == weights.tobytes()


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
def test_every_value_type(tmp_path, kind, values):
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


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("alignment", [None, 8, 64, 4096])
def test_versions_and_alignments(tmp_path, version, alignment):
    b = GGUFBuilder(version=version, alignment=alignment)
    b.tensor("a", (3,), data=b"abcdefghijkl").tensor("b", (32, 2), "Q4_0", data=bytes(range(36)))
    with GGUFFile.open(b.write(tmp_path / "v.gguf")) as gguf:
        assert (gguf.version, gguf.alignment) == (version, alignment or 32)
        assert bytes(gguf.data(gguf.tensors["a"])) == b"abcdefghijkl"
        assert bytes(gguf.data(gguf.tensors["b"])) == bytes(range(36))
        assert all(t.offset % gguf.alignment == 0 for t in gguf.tensors.values())


def test_vocabulary_without_tensors(tmp_path):
    """Such files end with their header, without padding."""
    b = GGUFBuilder().key("general.architecture", "llama")
    with GGUFFile.open(b.write(tmp_path / "v.gguf")) as gguf:
        assert gguf.tensors == {}
        with pytest.raises(ModelError, match="no tensors"):
            validate_model(gguf)


def test_big_header(tmp_path):
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


def test_getters(tmp_path):
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
def test_getters_name_the_key(tmp_path, call, message):
    b = GGUFBuilder().key("i", 3).key("f", 0.5).key("s", "text").key("b", True).key("nan", math.nan)
    b.key("ints", [1, 2, 3], I32).key("strs", ["a"]).key("infs", [1.0, -math.inf])
    path = b.write(tmp_path / "v.gguf")
    with GGUFFile.open(path) as gguf, pytest.raises(ModelError) as caught:
        call(gguf)
    assert str(caught.value) == f"{path}: {message}"


def test_text_that_is_not_utf8_fails_when_it_is_read(tmp_path):
    """A file is not refused for a broken description that nobody asks for."""
    b = GGUFBuilder().key("name", b"\xff\xfe", 8).key("words", ["ok", b"\xe2\x82"], 8).key("i", 1)
    with GGUFFile.open(b.write(tmp_path / "v.gguf")) as gguf:
        assert gguf.get_int("i") == 1
        with pytest.raises(ModelError, match="key 'name' is not UTF-8: "):
            gguf.get_str("name")
        with pytest.raises(ModelError, match="key 'words' is not UTF-8 at index 1: "):
            gguf.metadata["words"]


def test_read_into(tmp_path):
    b = GGUFBuilder().tensor("a", (4,), data=bytes(range(16))).tensor("b", (2,), data=b"ABCDEFGH")
    with GGUFFile.open(b.write(tmp_path / "v.gguf")) as gguf:
        buffer = bytearray(8)
        gguf.read_into(gguf.tensors["b"], memoryview(buffer))
        assert bytes(buffer) == b"ABCDEFGH"
        gguf.read_into(gguf.tensors["a"], memoryview(buffer), start=5)
        assert bytes(buffer) == bytes(range(5, 13))
        with pytest.raises(ValueError, match="of a tensor of 16"):
            gguf.read_into(gguf.tensors["a"], memoryview(buffer), start=9)


def test_file_that_shrinks_after_opening(tmp_path):
    path = tiny_llama().write(tmp_path / "v.gguf")
    with GGUFFile.open(path) as gguf:
        with path.open("r+b") as file:
            file.truncate(gguf.header_size)
        info = gguf.tensors["token_embd.weight"]
        for read in (lambda: gguf.data(info), lambda: gguf.read_into(info, memoryview(bytearray(4)))):
            with pytest.raises(ModelError, match="became shorter"):
                read()
        assert gguf.get_str("general.name") == "tiny"  # the header is not mapped


def test_file_system_without_mapping(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(errno.ENODEV, "No such device")

    monkeypatch.setattr(mmap, "mmap", refuse)
    with GGUFFile.open(tiny_llama().write(tmp_path / "v.gguf")) as gguf:
        with pytest.raises(ModelError, match="cannot be mapped: No such device; use --no-mmap"):
            gguf.mapping()
        gguf.read_into(gguf.tensors["token_embd.weight"], memoryview(bytearray(4)))


def test_close(tmp_path):
    gguf = GGUFFile.open(tiny_llama().write(tmp_path / "v.gguf"))
    view = gguf.data(gguf.tensors["output_norm.weight"])
    gguf.close()
    gguf.close()
    assert bytes(view) == bytes(128)  # a view that is out keeps its mapping
    with pytest.raises(ModelError, match="is closed"):
        gguf.data(gguf.tensors["output_norm.weight"])
    assert gguf.get_str("general.name") == "tiny"


def test_data_is_read_only(tmp_path):
    with GGUFFile.open(tiny_llama().write(tmp_path / "v.gguf")) as gguf:
        view = gguf.data(gguf.tensors["output_norm.weight"])
        assert view.readonly
        view.release()


def test_type_table_agrees_with_gguf_py():
    ours = {t.name: (t.value, t.block_size, t.type_size) for t in GGMLType}
    theirs = {t.name: (t.value, *gguf_py.GGML_QUANT_SIZES[t]) for t in gguf_py.GGMLQuantizationType}
    # gguf-py still counts Q8_1's two scales as 32-bit numbers; ggml-common.h asserts 16
    assert theirs.pop("Q8_1") == (9, 32, 40)
    assert ours.pop("Q8_1") == (9, 32, 36)
    shared = ours.keys() & theirs.keys()
    assert len(shared) >= 30
    assert {name: ours[name] for name in shared} == {name: theirs[name] for name in shared}
