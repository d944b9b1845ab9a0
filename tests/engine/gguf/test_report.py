"""How files that are something else and hostile names are quoted in messages."""

import struct

import pytest

from engine.errors import ModelError
from engine.gguf import GGUFFile
from engine.gguf.report import looks_like, printable
from support.refusals import refused


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
def test_file_that_is_not_gguf_is_refused_with_its_kind(tmp_path, content, reason):
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    assert reason in refused(path)


@pytest.mark.parametrize("name", ["a\nb.gguf", "\x1b[31m.gguf", "\u202efugg.gguf", "\udcff.gguf"])
def test_paths_are_shown_without_control_characters(tmp_path, name):
    with pytest.raises(ModelError) as caught:
        GGUFFile.open(tmp_path / name)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b", "a b"),
        ("a\nb", "a\\nb"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\u202eabc", "\\u202eabc"),
        ("\ud800", "\\ud800"),
        ("é日", "é日"),
    ],
)
def test_printable_escapes_what_a_terminal_would_interpret(text: str, expected: str) -> None:
    assert printable(text) == expected


def test_printable_of_a_long_text_ends_with_an_ellipsis() -> None:
    assert printable("a" * 120) == "a" * 120
    assert printable("a" * 121) == "a" * 119 + "…"
    assert printable("abcdef", 4) == "abc…"


def test_looks_like_a_web_page_also_after_a_byte_order_mark() -> None:
    assert "a web page" in looks_like(b"\xef\xbb\xbf\r\n<!DOCTYPE html>")
