"""Reading sound GGUF files."""

import errno
import mmap
import os
from pathlib import Path

import gguf as gguf_py
import numpy as np
import pytest

from engine.errors import ModelError
from engine.gguf import GGMLType, GGUFFile, validate_model
from support.builders.gguf import GGUFBuilder, tiny_llama

STORIES = Path(__file__).parents[3] / "models" / "stories.gguf"


def test_open_of_the_bundled_model_reads_its_metadata():
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


def test_open_agrees_with_an_independent_reader():
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


def test_open_agrees_with_an_independent_writer(tmp_path):
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


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("alignment", [None, 8, 64, 4096])
def test_every_version_and_alignment_is_read(tmp_path, version, alignment):
    b = GGUFBuilder(version=version, alignment=alignment)
    b.tensor("a", (3,), data=b"abcdefghijkl").tensor("b", (32, 2), "Q4_0", data=bytes(range(36)))
    with GGUFFile.open(b.write(tmp_path / "v.gguf")) as gguf:
        assert (gguf.version, gguf.alignment) == (version, alignment or 32)
        assert bytes(gguf.data(gguf.tensors["a"])) == b"abcdefghijkl"
        assert bytes(gguf.data(gguf.tensors["b"])) == bytes(range(36))
        assert all(t.offset % gguf.alignment == 0 for t in gguf.tensors.values())


def test_vocabulary_without_tensors_is_read(tmp_path):
    """Such files end with their header, without padding."""
    b = GGUFBuilder().key("general.architecture", "llama")
    with GGUFFile.open(b.write(tmp_path / "v.gguf")) as gguf:
        assert gguf.tensors == {}
        with pytest.raises(ModelError, match="no tensors"):
            validate_model(gguf)


def test_read_into_fills_the_buffer_from_start(tmp_path):
    b = GGUFBuilder().tensor("a", (4,), data=bytes(range(16))).tensor("b", (2,), data=b"ABCDEFGH")
    with GGUFFile.open(b.write(tmp_path / "v.gguf")) as gguf:
        buffer = bytearray(8)
        gguf.read_into(gguf.tensors["b"], memoryview(buffer))
        assert bytes(buffer) == b"ABCDEFGH"
        gguf.read_into(gguf.tensors["a"], memoryview(buffer), start=5)
        assert bytes(buffer) == bytes(range(5, 13))
        with pytest.raises(ValueError, match="of a tensor of 16"):
            gguf.read_into(gguf.tensors["a"], memoryview(buffer), start=9)


def test_pass_to_gives_the_offset_and_fails_for_truncated_tensors(tmp_path):
    b = GGUFBuilder().tensor("a", (4,), data=bytes(range(16))).tensor("b", (2,), data=b"ABCDEFGH")
    with GGUFFile.open(b.write(tmp_path / "v.gguf")) as gguf:
        info = gguf.tensors["b"]
        gguf.pass_to(info, lambda fd, offset: os.pread(fd, 8, offset) == b"ABCDEFGH")
        with pytest.raises(ModelError, match="became shorter while tensor 'b' was read"):
            gguf.pass_to(info, lambda fd, offset: False)

        def fail(fd, offset):
            raise OSError(errno.EIO, "Input/output error")

        with pytest.raises(ModelError, match="cannot be read: Input/output error"):
            gguf.pass_to(info, fail)


def test_file_that_shrinks_after_opening_is_an_error(tmp_path):
    path = tiny_llama().write(tmp_path / "v.gguf")
    with GGUFFile.open(path) as gguf:
        with path.open("r+b") as file:
            file.truncate(gguf.header_size)
        info = gguf.tensors["token_embd.weight"]
        for read in (lambda: gguf.data(info), lambda: gguf.read_into(info, memoryview(bytearray(4)))):
            with pytest.raises(ModelError, match="became shorter"):
                read()
        assert gguf.get_str("general.name") == "tiny"  # the header is not mapped


def test_file_system_without_mapping_can_still_be_read(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(errno.ENODEV, "No such device")

    monkeypatch.setattr(mmap, "mmap", refuse)
    with GGUFFile.open(tiny_llama().write(tmp_path / "v.gguf")) as gguf:
        with pytest.raises(ModelError, match="cannot be mapped: No such device; use --no-mmap"):
            gguf.mapping()
        gguf.read_into(gguf.tensors["token_embd.weight"], memoryview(bytearray(4)))


def test_close_keeps_views_and_refuses_new_ones(tmp_path):
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
