"""Files made by hand to hurt: each is refused with a ModelError that names the file and the reason."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.errors import ModelError
from engine.gguf import GGUFFile
from support.builders.gguf import BOOL, F32, I32, STRING, U32, GGUFBuilder, tiny_llama
from support.refusals import refused


def test_open_of_a_directory_is_refused(tmp_path):
    assert refused(tmp_path).startswith("is a directory")


def test_open_of_a_missing_file_is_refused(tmp_path):
    assert refused(tmp_path / "no.gguf") == "cannot be opened: No such file or directory"


def test_open_of_a_symlink_loop_is_refused(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert "symbolic links" in refused(tmp_path / "a")


def test_open_of_a_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "p")
    assert refused(tmp_path / "p") == "is not a regular file"


def test_open_without_permission_is_refused(tmp_path):
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


def test_open_of_a_path_with_nul_is_refused():
    with pytest.raises(ModelError, match=r"cannot be opened: .*embedded null"):
        GGUFFile.open("a\0b")


def test_split_model_of_one_part_is_whole(tmp_path):
    GGUFFile.open(tiny_llama().key("split.count", 1).write(tmp_path / "m.gguf")).close()


@pytest.mark.parametrize("alignment", [0, 1, 3, 4, 24, 33, 1 << 25, 1 << 31, (1 << 32) - 1])
def test_open_with_an_invalid_alignment_is_refused(tmp_path, alignment):
    b = tiny_llama().key("general.alignment", alignment)
    assert refused(b.write(tmp_path / "m.gguf")).startswith(f"key 'general.alignment' is {alignment}; ")


@pytest.mark.parametrize("value", [(32.0, F32), ("32", STRING), (True, BOOL), (32, I32), ([32], U32)])
def test_alignment_of_a_wrong_type_is_refused(tmp_path, value):
    b = tiny_llama().key("general.alignment", *value)
    assert refused(b.write(tmp_path / "m.gguf")).endswith("; it must be uint32")


def test_open_of_a_duplicate_tensor_is_refused(tmp_path):
    b = GGUFBuilder().tensor("a", (4,)).tensor("a", (4,))
    assert refused(b.write(tmp_path / "m.gguf")) == "tensor 'a' occurs twice"


@pytest.mark.parametrize("name", [b"", b"n" * 64, b"n" * 5000, b"a\0b", b"a\nb", b"\xc3"])
def test_invalid_tensor_name_is_refused(tmp_path, name):
    b = GGUFBuilder().tensor(name, (4,))
    assert refused(b.write(tmp_path / "m.gguf")).startswith("the name of tensor 1 of 1 ")


def test_tensor_name_of_the_maximum_length_is_read(tmp_path):
    with GGUFFile.open(GGUFBuilder().tensor("n" * 63, (4,)).write(tmp_path / "m.gguf")) as gguf:
        assert list(gguf.tensors) == ["n" * 63]


@pytest.mark.parametrize("n_dims", [0, 5, 1 << 31, (1 << 32) - 1])
def test_invalid_number_of_dimensions_is_refused(tmp_path, n_dims):
    b = GGUFBuilder().tensor("a", (4,), n_dims=n_dims)
    assert refused(b.write(tmp_path / "m.gguf")) == f"tensor 'a' has {n_dims} dimensions; expected 1 to 4"


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
def test_open_of_an_impossible_shape_is_refused(tmp_path, shape):
    b = GGUFBuilder().tensor("a", shape, data=bytes(64))
    assert refused(b.write(tmp_path / "m.gguf")) == f"tensor 'a' has the impossible shape {list(shape)}"


def test_tensor_whose_byte_count_overflows_is_refused(tmp_path):
    b = GGUFBuilder().tensor("a", (1 << 31, 1 << 31), data=bytes(64))
    assert f"has {1 << 64} bytes" in refused(b.write(tmp_path / "m.gguf"))


@pytest.mark.parametrize(("kind", "n", "block"), [("Q4_0", 33, 32), ("Q8_0", 16, 32), ("Q4_K", 128, 256)])
def test_rows_that_are_not_whole_blocks_are_refused(tmp_path, kind, n, block):
    b = GGUFBuilder().tensor("a", (n, 2), kind, data=bytes(4096))
    reason = refused(b.write(tmp_path / "m.gguf"))
    assert reason == f"tensor 'a' has rows of {n} elements; {kind} has blocks of {block}"


@pytest.mark.parametrize(("number", "name"), [(4, "Q4_2"), (5, "Q4_3"), (31, "Q4_0_4_4"), (38, "IQ4_NL_8_8")])
def test_open_of_a_removed_type_names_it(tmp_path, number, name):
    b = GGUFBuilder().tensor("a", (32,), type_number=number)
    assert f"has type {name}, which ggml dropped" in refused(b.write(tmp_path / "m.gguf"))


@pytest.mark.parametrize("number", [43, 100, 1 << 31, (1 << 32) - 1])
def test_open_of_an_unknown_type_gives_its_number(tmp_path, number):
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
def test_open_of_an_invalid_offset_is_refused(tmp_path, offset, reason):
    b = GGUFBuilder().tensor("a", (16,)).tensor("b", (32,), offset=offset, data=bytes(160))
    assert reason in refused(b.write(tmp_path / "m.gguf"))


def test_truncated_tensor_data_is_refused(tmp_path):
    b = GGUFBuilder().tensor("a", (16,)).tensor("b", (32,))
    path = b.write(tmp_path / "m.gguf")
    size = path.stat().st_size
    os.truncate(path, size - 1)
    assert refused(path).startswith(f"truncated or corrupt: tensor 'b' ends at byte {size}, ")


def test_tensors_in_any_order_and_with_gaps_are_read(tmp_path):
    b = GGUFBuilder().tensor("a", (8,), offset=128).tensor("b", (8,), offset=0, data=bytes(range(32)))
    b.blob += bytes(200)
    with GGUFFile.open(b.write(tmp_path / "m.gguf")) as gguf:
        assert bytes(gguf.data(gguf.tensors["a"])) == bytes(32)
