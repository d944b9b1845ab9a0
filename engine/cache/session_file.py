"""Sessions on disk: their tokens and the contents of their cells.

The file is in the safetensors format: `tokens` I32 [n], for each layer `k.i` and `v.i` U8 [n_past, bytes of a
row] in the cache's type (in layers with a window of the last n_window positions), `states` U8 [1, bytes], the
recurrent states after n_past tokens, if the model has any, and `logits` F32 [n_vocab] after the last token,
if they are known. Its metadata name the version of this layout, the model, the cache's type, the LoRA
adapters with their scales, and a checksum over the whole file.

A session file must be trusted like a model file: its contents go into the cache that all sessions share.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import tempfile
from array import array
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.cache.cached_sequence import CachedSequence
from engine.cache.context import CacheContext
from engine.config import adapter_scales
from engine.errors import ConfigError, ModelError, StorageError
from engine.gguf.report import printable
from engine.types import AdapterScales, ProgressCallback

FORMAT, VERSION = "ggserve-session", "1"
VERSION_WITH_ADAPTERS = "2"  # readers of version 1 would ignore them
VERSION_WITH_WINDOWS = "3"  # and those of version 2 misread layers with a window
VERSIONS = (VERSION, VERSION_WITH_ADAPTERS, VERSION_WITH_WINDOWS)
MAX_HEADER = 1 << 20
NO_CHECKSUM = "0" * 64
PIECE = 16 << 20  # bytes in memory at a time

T = TypeVar("T")
Steps = Generator[float, None, T]  # yields the fraction done, so that the caller can do other work in between


def save(
    path: str | os.PathLike[str],
    model: CacheContext,
    sequence: CachedSequence,
    logits: NDArray[np.float32] | None = None,
    progress: ProgressCallback | None = None,
) -> int:
    """Write `sequence` to `path`, which is replaced only once all is written; return its size in bytes.

    logits: those after the last token, if known. Raises ConfigError for an empty sequence,
    StorageError if the file cannot be written.
    """
    return _run(saving(path, model, sequence, logits), "saving", progress)


def saving(
    path: str | os.PathLike[str],
    model: CacheContext,
    sequence: CachedSequence,
    logits: NDArray[np.float32] | None = None,
) -> Steps[int]:
    """`save` in steps. If it is closed early, an existing file stays as it was."""
    if not sequence.tokens:
        raise ConfigError("the session is empty; there is nothing to save")
    sequence.refit()
    if sequence.n_pending:
        logits = None
    target = Path(path)
    n_past, windows = sequence.n_past, model.pool.windows
    n_window = n_past if windows is None else min(n_past, windows.reach)
    tensors = _layout(model, (len(sequence.tokens), n_past, n_window), logits is not None)
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "model": model.fingerprint,
        "kv_type": model.cache.kv_type,
        "n_past": str(n_past),
        "checksum": NO_CHECKSUM,
    }
    if n_window < n_past:
        metadata["version"] = VERSION_WITH_WINDOWS
        metadata["n_window"] = str(n_window)
    if sequence.adapters:
        metadata["version"] = max(metadata["version"], VERSION_WITH_ADAPTERS)
        metadata["lora"] = json.dumps([[model.adapters[i], scale] for i, scale in sequence.adapters])
    header = _header(metadata, tensors)
    part = None
    try:
        descriptor, part = tempfile.mkstemp(".part", f".{target.name[:100]}.", target.parent)
        with open(descriptor, "wb") as file:
            digest = hashlib.blake2b(header, digest_size=32)
            file.write(header)
            done = unsynced = 0
            for piece in _pieces(model, sequence, logits, n_window):
                digest.update(piece)
                file.write(piece)
                done += len(piece)
                unsynced += len(piece)
                if unsynced >= PIECE:  # in parts, or the last sync would take long
                    unsynced = 0
                    file.flush()
                    os.fsync(file.fileno())
                yield done / _size(tensors)
            file.seek(0)
            file.write(header.replace(NO_CHECKSUM.encode(), digest.hexdigest().encode()))
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
    except BaseException as error:
        if part is not None:
            with suppress(OSError):
                os.unlink(part)
        if isinstance(error, OSError | ValueError):  # ValueError: a NUL in the path
            reason = getattr(error, "strerror", None) or error
            raise StorageError(f"{_name(path)}: the session cannot be saved: {reason}") from error
        raise
    return len(header) + _size(tensors)


def restore(
    path: str | os.PathLike[str],
    model: CacheContext,
    sequence: CachedSequence,
    progress: ProgressCallback | None = None,
) -> NDArray[np.float32] | None:
    """Fill the empty `sequence` from `path`; return the logits after its last token, if the file has them.

    What the prefix cache already holds of it is shared instead. Raises ModelError if the file is not a
    session of this model or is damaged, ConfigError if it cannot be opened or the model was loaded with
    another cache type or too small a context, OutOfMemoryError if the cache has no room. Nothing has changed
    then.
    """
    return _run(restoring(path, model, sequence), "restoring", progress)


def restoring(
    path: str | os.PathLike[str], model: CacheContext, sequence: CachedSequence
) -> Steps[NDArray[np.float32] | None]:
    """`restore` in steps. If it is closed early, nothing has changed."""
    try:
        with _open(path) as file:
            return (yield from _SessionReader(path, file, model).fill(sequence))
    except OSError as error:
        raise ModelError(f"{_name(path)}: cannot be read: {error.strerror or error}") from error


def _run(steps: Steps[T], what: str, progress: ProgressCallback | None) -> T:
    while True:
        try:
            done = next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
        if progress is not None:
            progress(done, what)


def _layout(model: CacheContext, sizes: tuple[int, int, int], with_logits: bool) -> dict[str, dict[str, Any]]:
    """The header's entries in the order of the data. sizes: n_tokens, n_past, n_window."""
    n_tokens, n_past, n_window = sizes
    tensors: dict[str, dict[str, Any]] = {}
    end = 0

    def add(name: str, dtype: str, shape: list[int], nbytes: int) -> None:
        nonlocal end
        tensors[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + nbytes]}
        end += nbytes

    add("tokens", "I32", [n_tokens], 4 * n_tokens)
    if with_logits:
        add("logits", "F32", [model.n_vocab], 4 * model.n_vocab)
    for name, table, windowed in model.cache.tables():
        n = n_window if windowed else n_past
        add(name, "U8", [n, table.strides[1]], n * table.strides[1])
    if n_past and model.states is not None:
        add("states", "U8", [1, model.states.nbytes], model.states.nbytes)
    return tensors


def _name(path: str | os.PathLike[str]) -> str:
    return printable(os.fsdecode(path))


def _size(tensors: dict[str, dict[str, Any]]) -> int:
    return max(int(entry["data_offsets"][1]) for entry in tensors.values())


def _header(metadata: dict[str, str], tensors: dict[str, dict[str, Any]]) -> bytes:
    text = json.dumps({"__metadata__": metadata, **tensors}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data begin aligned
    return len(text).to_bytes(8, "little") + text


def _pieces(
    model: CacheContext, sequence: CachedSequence, logits: NDArray[np.float32] | None, n_window: int
) -> Iterator[bytes | bytearray]:
    yield sequence.tokens.tobytes()
    if logits is not None:
        yield logits.astype("<f4").tobytes()
    cells = sequence.cells[: sequence.n_past]
    rows = array("i", model.pool.rows_of(cells[len(cells) - n_window :]))
    for _, table, windowed in model.cache.tables():
        step, numbers = max(1, PIECE // table.strides[1]), rows if windowed else cells
        for start in range(0, len(numbers), step):
            yield from model.cache.read(table, numbers[start : start + step])
    if sequence.n_past and model.states is not None:
        yield model.states.read(sequence.slot)


def _open(path: str | os.PathLike[str]) -> BinaryIO:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # first: opening a pipe could block
            raise ConfigError(f"{_name(path)} is not a regular file")
        return open(path, "rb")
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{_name(path)}: the session cannot be opened: {reason}") from error


class _SessionReader:
    """Reads one file into a sequence."""

    def __init__(self, path: str | os.PathLike[str], file: BinaryIO, model: CacheContext) -> None:
        self.path, self.file, self.model = path, file, model
        self.digest = hashlib.blake2b(digest_size=32)
        self.done = 0
        self._read_header()

    def fail(self, text: str) -> NoReturn:
        raise ModelError(f"{_name(self.path)}: {text}")

    def _read_header(self) -> None:
        size = os.fstat(self.file.fileno()).st_size
        length = self.file.read(8)
        n = int.from_bytes(length, "little")
        if len(length) < 8 or not 2 <= n <= min(size - 8, MAX_HEADER):
            self.fail("is not a saved session, or was truncated")
        raw = self.file.read(n)
        try:
            header = json.loads(raw)
            metadata = header.pop("__metadata__")
            is_session = metadata.get("format") == FORMAT
        except (ValueError, RecursionError, LookupError, AttributeError, TypeError):
            is_session = False
        if not is_session:
            self.fail("is not a saved session")
        if metadata.get("version") not in VERSIONS:
            version = printable(str(metadata.get("version")), 20)
            self.fail(
                f"is a saved session of version {version}; this release reads versions "
                f"{VERSION} to {VERSION_WITH_WINDOWS}"
            )
        self._check_model(metadata)
        self.adapters = self._adapters(metadata)
        try:
            self.n_past = int(metadata["n_past"])
            self.n_window = int(metadata.get("n_window", self.n_past))
            (self.n_tokens,) = header["tokens"]["shape"]
            self.checksum = str(metadata["checksum"])
            sound = 0 <= self.n_window <= self.n_past <= self.n_tokens < 1 << 31 and self.n_tokens > 0
        except (ValueError, LookupError, TypeError):
            sound = False
        if not sound or type(self.n_tokens) is not int or not re.fullmatch("[0-9a-f]{64}", self.checksum):
            self.fail("is damaged: its header is incomplete")
        if self.n_tokens > self.model.n_ctx:
            raise ConfigError(
                f"{_name(self.path)}: the session has {self.n_tokens} tokens, but the model is loaded with a "
                f"context of {self.model.n_ctx}; raise --context-size"
            )
        self._check_windows()
        self.has_logits = "logits" in header
        tensors = _layout(self.model, (self.n_tokens, self.n_past, self.n_window), self.has_logits)
        self.total = _size(tensors)
        if header != tensors or (self.has_logits and self.n_past < self.n_tokens):
            self.fail("is damaged: its tensors do not match its metadata")
        if size != 8 + n + self.total:
            self.fail(f"was truncated or is damaged: it has {size} bytes instead of {8 + n + self.total}")
        self.digest.update(length + raw.replace(self.checksum.encode(), NO_CHECKSUM.encode(), 1))

    def _check_model(self, metadata: dict[str, Any]) -> None:
        saved, here = str(metadata.get("model")), self.model.fingerprint
        if saved != here:
            arch = saved.rpartition("-")[0]
            other = "another model file" if here.startswith(f"{arch}-") else f"a {printable(arch, 40)} model"
            self.fail(f"was saved with {other}; load the one that it was saved with")
        kv_type = metadata.get("kv_type")
        if kv_type != self.model.cache.kv_type:
            raise ConfigError(
                f"{_name(self.path)}: was saved with --kv-type {printable(str(kv_type), 20)}, but the model "
                f"is loaded with {self.model.cache.kv_type}"
            )

    def _check_windows(self) -> None:
        """Layers with a window go on from the last positions that they have."""
        windows = self.model.pool.windows
        if windows is None and self.n_window < self.n_past:
            raise ConfigError(
                f"{_name(self.path)}: of layers with a window the file has only the last window, but the "
                "model is loaded with a cache that keeps all positions; load it with a larger --context-size"
            )
        if windows is not None and self.n_window < min(self.n_past, windows.reach):
            self.fail("is damaged: its windows are too short")

    def _adapters(self, metadata: dict[str, Any]) -> AdapterScales:
        """The adapters of the session, by their numbers here."""
        if "lora" not in metadata:
            return ()
        try:
            saved = [(str(name), float(scale)) for name, scale in json.loads(metadata["lora"])]
        except (ValueError, OverflowError, RecursionError, LookupError, TypeError):
            self.fail("is damaged: its LoRA adapters cannot be read")
        here, pairs = list(self.model.adapters), []
        for name, scale in saved:
            if name not in here:
                raise ConfigError(
                    f"{_name(self.path)}: the session uses a LoRA adapter that is not loaded; load the "
                    "adapters that it was saved with (--lora)"
                )
            number = here.index(name)
            here[number] = ""  # the same adapter may be loaded twice
            pairs.append((number, scale))
        try:
            return adapter_scales(pairs, len(here))
        except ConfigError as error:
            self.fail(f"is damaged: {error}")

    def _read(self, n: int) -> bytearray:
        """The next `n` bytes of data."""
        data = bytearray(n)
        if self.file.readinto(data) != n:  # type: ignore[attr-defined]
            self.fail("was truncated while it was being read")
        self.digest.update(data)
        self.done += n
        return data

    def fill(self, sequence: CachedSequence) -> Steps[NDArray[np.float32] | None]:
        tokens = array("i")
        tokens.frombytes(self._read(4 * self.n_tokens))
        n_vocab = self.model.n_vocab
        if not 0 <= min(tokens) <= max(tokens) < n_vocab:
            self.fail(f"is damaged: it has tokens outside of the vocabulary of {n_vocab}")
        logits = np.frombuffer(self._read(4 * n_vocab), "<f4") if self.has_logits else None
        sequence.tokens.extend(tokens)
        before, sequence.adapters = sequence.adapters, self.adapters
        try:
            sequence.attach()
            n_new = max(0, self.n_past - sequence.n_past)
            self.model.prefix.make_room(n_new)
            if n_new:
                sequence.grow(n_new, restored=True)
            yield from self._fill_cells(sequence, n_new)
            states = self.model.states
            if self.n_past and states is not None:
                state = self._read(states.nbytes)
                if n_new:  # else more is cached than the file has
                    states.write(sequence.slot, memoryview(state))
            if self.digest.hexdigest() != self.checksum:
                self.fail("is damaged: its checksum is wrong")
        except BaseException:
            self._undo(sequence)
            sequence.adapters = before
            raise
        sequence.n_past = max(sequence.n_past, self.n_past)
        sequence.publish()
        sequence.mark()
        return logits

    def _fill_cells(self, sequence: CachedSequence, n_new: int) -> Iterator[float]:
        """All but the `n_new` last positions are known, or outside of windows: read for the checksum only."""
        cells = sequence.cells[self.n_past - n_new : self.n_past]
        held = sequence.rows.held(sequence.cells)
        rows = array("i", self.model.pool.rows_of(held[max(0, len(held) - n_new) :]))
        for _, table, windowed in self.model.cache.tables():
            size, numbers = table.strides[1], rows if windowed else cells
            n, step = self.n_window if windowed else self.n_past, max(1, PIECE // table.strides[1])
            skipped = n - len(numbers)
            for start in range(0, n, step):
                stop = min(start + step, n)
                data, first = memoryview(self._read((stop - start) * size)), min(max(start, skipped), stop)
                at = numbers[first - skipped : max(stop - skipped, 0)]
                self.model.cache.write(table, at, data[(first - start) * size :])
                yield self.done / self.total

    def _undo(self, sequence: CachedSequence) -> None:
        cells = sequence.cells[sequence.n_past :]
        try:
            # Attention multiplies unused cells by zero on some devices, so they must be finite.
            self.model.cache.clear(cells, array("i", self.model.pool.rows_of(cells)))
        finally:
            sequence.release()
            del sequence.tokens[:]
