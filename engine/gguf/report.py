"""Quotes untrusted bytes in messages."""

from __future__ import annotations

import re

_MAGICS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the model itself; run `git lfs pull`"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"PK\x03\x04", "a zip archive or a PyTorch checkpoint; convert it to GGUF"),
    (b"\x80\x02", "a Python pickle (PyTorch checkpoint); convert it to GGUF"),
    (b"\x80\x04", "a Python pickle (PyTorch checkpoint); convert it to GGUF"),
    (b"tjgg", "a GGJT file (pre-GGUF); convert it"),
    (b"fmgg", "a GGMF file (pre-GGUF); convert it"),
    (b"lmgg", "a GGML file (pre-GGUF); convert it"),
    (b"algg", "a GGLA adapter (pre-GGUF); convert it"),
    (b"\x89HDF", "an HDF5 file; convert it to GGUF"),
    (b"\x1f\x8b", "compressed with gzip; unpack it"),
    (b"\xfd7zXZ", "compressed with xz; unpack it"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it"),
    (b"\x7fELF", "a program or library"),
    (b"%PDF", "a PDF document"),
)


def looks_like(head: bytes) -> str:
    """A description, for an error message, of what the first bytes of a file that is not GGUF seem to be."""
    for magic, what in _MAGICS:
        if head.startswith(magic):
            return what
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page; the download needs the direct link, perhaps a login"
    if head[8:10] == b'{"' and head[4:8] == bytes(4):
        return "a safetensors file; convert it to GGUF"
    if text.startswith((b"{", b"[")):
        return "JSON text; perhaps an error message saved by a download"
    if head and not head.strip(b"\0"):
        return "filled with zeros; the download did not finish"
    magic_text = "".join(chr(b) if 32 <= b < 127 else f"\\x{b:02x}" for b in head[:4])
    return f"something else: it begins with '{magic_text}'"


def printable(text: str, limit: int = 120) -> str:
    """`text` on one line, without anything that a terminal would interpret, at most `limit` characters.

    A file's strings are an attacker's: escape sequences, right-to-left marks and lone surrogates are shown
    escaped.
    """
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    return re.sub(r"[^ ]", lambda m: m[0] if m[0].isprintable() else _escape(m[0]), text)


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
