"""The identity of a model."""

from __future__ import annotations

import hashlib

from engine.gguf.reader import GGUFFile

SAMPLE = 64  # bytes of each tensor that go into it


def fingerprint(gguf: GGUFFile) -> str:
    """Identifies a model by what its cache depends on. Takes a few milliseconds.

    A hash of the architecture's keys, and of each tensor's name, type, shape and a few bytes of its middle.
    The model's name, templates and vocabulary may change.
    """
    digest = hashlib.blake2b(digest_size=16)
    for key in sorted(gguf.metadata):
        if key == "general.architecture" or key.startswith((f"{gguf.arch}.", "adapter.")):
            digest.update(f"{key}={gguf.metadata[key]!r}\n".encode())
    for name, info in sorted(gguf.tensors.items()):
        sample = bytearray(min(SAMPLE, info.nbytes))
        gguf.read_into(info, memoryview(sample), (info.nbytes - len(sample)) // 2)
        digest.update(f"{name} {info.type.name} {info.shape}\n".encode() + sample)
    return f"{gguf.arch}-{digest.hexdigest()}"
