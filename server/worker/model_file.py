"""Whether a model file is still the one that was loaded."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

from engine.gguf.split import files_of

HEADER = 16 << 20  # bytes hashed from the start of a file: metadata and names of tensors
SAMPLES, SAMPLE = 256, 4096  # and as many pieces of so many bytes, spread evenly over the rest


class _Stamp(NamedTuple):
    size: int
    modified_ns: int
    inode: int


class ModelFile:
    """The files of a model as they are now, including all parts of a split model. Reads only a little of
    them.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._stamps = self._stat()
        self._fingerprint: bytes | None = None

    def read(self) -> None:
        """Compute the fingerprint, which takes some milliseconds and disk reads.

        Unreadable files have none.
        """
        self._fingerprint = self._digest()

    def is_same(self) -> bool:
        """Whether the files still have the contents that `read` saw; True if that cannot be determined.

        Size, time and inode are compared first; if one differs, the fingerprint decides.
        """
        now = self._stat()
        if now == self._stamps:
            return True
        sizes = [stamp and stamp.size for stamp in now.values()]
        if sizes != [stamp and stamp.size for stamp in self._stamps.values()]:
            return False
        if self._fingerprint is None or self._digest() != self._fingerprint:
            return False
        self._stamps = now
        return True

    def _stat(self) -> dict[Path, _Stamp | None]:
        stamps: dict[Path, _Stamp | None] = {}
        for path in files_of(self._path):
            try:
                facts = path.stat()
            except OSError:
                stamps[path] = None
            else:
                stamps[path] = _Stamp(facts.st_size, facts.st_mtime_ns, facts.st_ino)
        return stamps

    def _digest(self) -> bytes | None:
        digest = hashlib.sha256()
        try:
            for path in files_of(self._path):
                with path.open("rb", buffering=0) as file:
                    size = os.fstat(file.fileno()).st_size
                    digest.update(size.to_bytes(8, "little"))
                    digest.update(file.read(HEADER) or b"")
                    for i in range(SAMPLES if size > HEADER else 0):
                        file.seek(HEADER + (size - HEADER) * i // SAMPLES)
                        digest.update(file.read(SAMPLE) or b"")
        except OSError:
            return None
        return digest.digest()
