"""`GGUFFile`: a GGUF file whose header has been checked, with typed access to it."""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NoReturn, Self

from engine.gguf.access import TypedAccess
from engine.gguf.header import MAX_KEYS, Cursor, Metadata, read_entries
from engine.gguf.report import looks_like, printable
from engine.gguf.split import MAX_PARTS, model_in, part_paths
from engine.gguf.types import REMOVED_TYPES, GGMLType, TensorInfo, ValueType

DEFAULT_ALIGNMENT = 32
MAX_ALIGNMENT = 1 << 24
MAX_TENSORS = 1 << 18
MAX_NAME = 64  # ggml keeps names in char[64]
MAX_DIMS = 4

_TYPES = {kind.value: kind for kind in GGMLType}


class GGUFFile(TypedAccess):
    """A model in one GGUF file (version 2 or 3, little-endian) or in several, opened with `GGUFFile.open`.

    The header is held in memory; tensor data is mapped on first access. Every method raises ModelError
    when the file is at fault. `metadata` maps keys to decoded values, `tensors` names to `TensorInfo`.

    Of a split model this is the first part, which has the metadata, with the tensors of all `parts`; each
    part is a file with its own mapping. `path` and `file_size` are those of the first part.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fsdecode(path)
        self.parts: tuple[GGUFFile, ...] = (self,)
        self._map: mmap.mmap | None = None
        self._file = self._open()
        try:
            self._read_header()
        except BaseException:
            self._file.close()
            raise

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open and check a model: its file, any part of a split model, or the directory that holds it."""
        file = cls(path)
        try:
            count = file.get_int("split.count", 0)
            if count > 1:
                return cls._join(file, count)
        except BaseException:
            file._close_part()
            raise
        return file

    @classmethod
    def _join(cls, file: Self, count: int) -> Self:
        """The first part of a split model, with the tensors of all."""
        if count > MAX_PARTS:
            file.fail(f"key 'split.count' is {count}; at most {MAX_PARTS} parts are supported")
        total = file.get_int("split.tensors.count", None)
        parts: list[Self] = []
        try:
            for i, path in enumerate(part_paths(Path(file.path), count, file.fail)):
                part = file if path == Path(file.path) else cls(path)
                parts.append(part)
                place = (part.get_int("split.no", -1), part.get_int("split.count", -1))
                if place != (i, count) or part.get_int("split.tensors.count", None) != total:
                    part.fail(f"is not part {i + 1} of the same split model of {count} parts")
            first = parts[0]
            tensors: dict[str, TensorInfo] = {}
            for i, part in enumerate(parts):
                for info in part.tensors.values():
                    if info.name in tensors:
                        part.fail(
                            f"tensor '{printable(info.name)}' is in part {tensors[info.name].part + 1} too"
                        )
                    tensors[info.name] = info._replace(part=i)
            if total is not None and len(tensors) != total:
                first.fail(
                    f"its {count} parts have {len(tensors)} tensors, but split.tensors.count is {total}"
                )
        except BaseException:
            for part in parts:
                part._close_part()
            raise
        first.tensors, first.parts = tensors, tuple(parts)
        return first

    def _open(self) -> BinaryIO:
        try:
            mode = os.stat(self.path).st_mode  # first: opening a pipe or a device could block or have effects
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            self._cannot("opened", error)
        if stat.S_ISDIR(mode):
            self.path = str(model_in(Path(self.path), self.fail))
            return self._open()
        if not stat.S_ISREG(mode):
            self.fail("is not a regular file")
        try:
            return open(self.path, "rb", buffering=0)
        except OSError as error:
            self._cannot("opened", error)

    def _cannot(self, be: str, error: OSError | ValueError) -> NoReturn:
        self.fail(f"cannot be {be}: {getattr(error, 'strerror', None) or error}")

    def _read_header(self) -> None:
        try:
            self.file_size = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            self._cannot("read", error)
        if self.file_size == 0:
            self.fail("is empty (0 bytes)")
        cursor = Cursor(self._file, self.file_size, self.fail)
        cursor.need(min(self.file_size, 32), "the header")
        if cursor.buf[:4] != b"GGUF":
            self.fail(f"is not a GGUF file but {looks_like(cursor.buf[:64])}")
        cursor.pos = 4
        self.version = self._version(cursor)
        n_tensors = cursor.u64("the number of tensors")
        n_keys = cursor.u64("the number of keys")
        # the shortest key-value pair has 14 bytes, the shortest tensor description 33
        if n_keys > min(MAX_KEYS, self.file_size // 14):
            self.fail(f"corrupt: the header claims {n_keys} keys in {self.file_size} bytes")
        if n_tensors > min(MAX_TENSORS, self.file_size // 33):
            self.fail(f"corrupt: the header claims {n_tensors} tensors in {self.file_size} bytes")
        entries = read_entries(cursor, n_keys)
        self.metadata = Metadata(cursor.buf[: cursor.pos], entries, self.fail)
        self.alignment = self._alignment()
        self.tensors = self._read_tensors(cursor, n_tensors)
        self.header_size = cursor.pos  # without the padding before the tensor data

    def _version(self, cursor: Cursor) -> int:
        version = cursor.u32("the version")
        if version in (2, 3):
            return version
        if version == 1:
            self.fail("GGUF version 1 is no longer supported; convert the original model again")
        if version and not version & 0xFFFF:
            self.fail("is a big-endian GGUF file; convert it with gguf-convert-endian")
        self.fail(f"GGUF version {version} is unknown; versions 2 and 3 are supported")

    def _alignment(self) -> int:
        entry = self.metadata.entries.get("general.alignment")
        if entry is None:
            return DEFAULT_ALIGNMENT
        if entry.type is not ValueType.UINT32 or entry.n is not None:
            self._bad_type("general.alignment", entry, "uint32")
        alignment = self.get_int("general.alignment")
        if alignment & (alignment - 1) or not 8 <= alignment <= MAX_ALIGNMENT:
            self.fail(
                f"key 'general.alignment' is {alignment}; expected a power of two, 8 to {MAX_ALIGNMENT}"
            )
        return alignment

    def _read_tensors(self, cursor: Cursor, count: int) -> dict[str, TensorInfo]:
        infos = [self._read_tensor(cursor, i, count) for i in range(count)]
        start = -(-cursor.pos // self.alignment) * self.alignment
        tensors: dict[str, TensorInfo] = {}
        for info in infos:
            if info.name in tensors:
                self.fail(f"tensor '{printable(info.name)}' occurs twice")
            end = start + info.offset + info.nbytes
            if end > self.file_size:
                self.fail(
                    f"truncated or corrupt: tensor '{printable(info.name)}' ends at byte {end}, "
                    f"but the file has {self.file_size}"
                )
            tensors[info.name] = info._replace(offset=start + info.offset)
        previous = None
        for info in sorted(tensors.values(), key=lambda t: t.offset):
            if previous is not None and previous.offset + previous.nbytes > info.offset:
                both = f"'{printable(previous.name)}' and '{printable(info.name)}'"
                self.fail(f"corrupt: tensors {both} overlap")
            previous = info
        return tensors

    def _read_tensor(self, cursor: Cursor, i: int, count: int) -> TensorInfo:
        name = cursor.name(f"the name of tensor {i + 1} of {count}", MAX_NAME)
        what = f"tensor '{printable(name)}'"
        n_dims = cursor.u32(what)
        if not 1 <= n_dims <= MAX_DIMS:
            self.fail(f"{what} has {n_dims} dimensions; expected 1 to {MAX_DIMS}")
        shape = tuple(cursor.u64(what) for _ in range(n_dims))
        kind = self._tensor_type(cursor.u32(what), what)
        offset = cursor.u64(what)
        rows = 1
        for n in shape[1:]:
            rows *= n
        # Python's integers do not overflow, ggml's do: 2^63 is refused here even if a sparse file had room
        if min(shape) == 0 or shape[0] * rows >= 1 << 63:
            self.fail(f"{what} has the impossible shape {list(shape)}")
        if shape[0] % kind.block_size:
            self.fail(f"{what} has rows of {shape[0]} elements; {kind.name} has blocks of {kind.block_size}")
        nbytes = kind.row_size(shape[0]) * rows
        if offset % self.alignment:
            self.fail(f"{what} has offset {offset}, not a multiple of the alignment {self.alignment}")
        if nbytes > self.file_size or offset > self.file_size:
            self.fail(f"{what} has {nbytes} bytes at offset {offset}, but the file has {self.file_size}")
        return TensorInfo(name, kind, shape, offset, nbytes)

    def _tensor_type(self, number: int, what: str) -> GGMLType:
        kind = _TYPES.get(number)
        if kind is not None:
            return kind
        if removed := REMOVED_TYPES.get(number):
            self.fail(f"{what} has type {removed}, which ggml dropped; quantize the model again")
        self.fail(f"{what} has the unknown type {number}")

    @property
    def nbytes(self) -> int:
        """Bytes of all parts."""
        return sum(part.file_size for part in self.parts)

    def mapping(self) -> memoryview:
        """This file alone, mapped read-only. Valid until `close`."""
        if self._map is None:
            self._check_size()
            try:
                self._map = mmap.mmap(self._file.fileno(), self.file_size, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or error
                self.fail(f"cannot be mapped: {reason}; use --no-mmap (use_mmap=False) to read it instead")
        return memoryview(self._map)

    def data(self, info: TensorInfo) -> memoryview:
        """The bytes of one tensor in the mapping of its part."""
        return self.parts[info.part].mapping()[info.offset : info.offset + info.nbytes]

    def pass_to(self, info: TensorInfo, read: Callable[[int, int], bool]) -> None:
        """Calls `read` with the descriptor of the tensor's file and its offset there; False: it is short."""
        part = self.parts[info.part]
        if part is not self:
            return part.pass_to(info._replace(part=0), read)
        self._check_size()
        try:
            if not read(self._file.fileno(), info.offset):
                self.fail(f"became shorter while tensor '{printable(info.name)}' was read")
        except OSError as error:
            self._cannot("read", error)

    def read_into(self, info: TensorInfo, buffer: memoryview, start: int = 0) -> None:
        """Fills `buffer` with the tensor's bytes from `start` on, without mapping the file.

        Moves the file's position: one thread at a time.
        """
        part = self.parts[info.part]
        if part is not self:
            return part.read_into(info._replace(part=0), buffer, start)
        view = buffer.cast("B")
        if start < 0 or start + len(view) > info.nbytes:
            raise ValueError(f"bytes {start} to {start + len(view)} of a tensor of {info.nbytes}")
        done = 0
        self._check_size()
        try:
            self._file.seek(info.offset + start)
            while done < len(view):
                got = self._file.readinto(view[done:])  # type: ignore[attr-defined]
                if not got:
                    self.fail(f"became shorter while tensor '{printable(info.name)}' was read")
                done += got
        except OSError as error:
            self._cannot("read", error)

    def _check_size(self) -> None:
        if self._file.closed:
            self.fail("is closed")
        if os.fstat(self._file.fileno()).st_size < self.file_size:
            self.fail("became shorter since it was opened")

    def close(self) -> None:
        """Close all parts. A mapping goes when the last view of it does."""
        for part in self.parts:
            part._close_part()

    def _close_part(self) -> None:
        self._file.close()
        mapping, self._map = self._map, None
        if mapping is not None:
            with suppress(BufferError):  # views are still out: it is freed with the last of them
                mapping.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"GGUFFile({self.path!r}, {len(self.metadata)} keys, {len(self.tensors)} tensors)"
