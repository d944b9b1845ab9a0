"""What damaged files of models and sessions may do: be refused in one line, or be as good as sound ones."""

from __future__ import annotations

import hashlib
import json
import re
from itertools import pairwise
from pathlib import Path

import engine
from engine.cache.session_file import NO_CHECKSUM
from engine.errors import ConfigError, ModelError
from engine.gguf import GGUFFile, validate_model
from engine.model.info import describe, render


def behaves(path: Path, *, with_info: bool = False) -> bool:
    """Opens the file and uses all of it. True: accepted as a model. False: refused cleanly."""
    size = path.stat().st_size
    try:
        gguf = GGUFFile.open(path)
    except ModelError as error:
        check_message(error, path)
        return False
    with gguf:
        spans = []
        for name, info in gguf.tensors.items():
            view = gguf.data(info)
            assert len(view) == info.nbytes > 0
            assert view[0] + view[-1] >= 0  # reads the ends
            view.release()
            assert name == info.name
            assert gguf.header_size <= info.offset < info.offset + info.nbytes <= size
            assert info.offset % gguf.alignment == 0
            spans.append((info.offset, info.offset + info.nbytes))
        spans.sort()
        assert all(a[1] <= b[0] for a, b in pairwise(spans))
        for key in gguf.metadata:
            kind = gguf.value_type(key)
            assert kind is not None
            try:
                value = gguf.metadata[key]
            except ModelError as error:
                check_message(error, path)
                continue
            assert kind[1] is None or len(value) == kind[1]
        try:
            validate_model(gguf)
            sound = True
        except ModelError as error:
            check_message(error, path)
            sound = False
    if with_info:
        try:
            described = describe(path, tensors=True, tokens=True, context=64, kv_type="f16")
        except ModelError as error:
            check_message(error, path)
        else:
            json.dumps(described)
            text = render(described)
            assert all(line.isprintable() for line in text.split("\n"))
    return sound


def check_message(error: ModelError, path: Path) -> None:
    message = str(error)
    assert message.startswith(f"{path}: ")
    assert message.isprintable()  # also: one line
    assert len(message) < 1000


_CHECKSUM = re.compile(rb'"checksum": ?"([0-9a-f]{64})"')


def mended(data: bytes) -> bytes:
    """A saved session with the checksum that belongs to it: to reach what lies behind that check."""
    end = 8 + int.from_bytes(data[:8], "little")
    match = _CHECKSUM.search(data, 8, min(end, len(data)))
    if match is None:
        return data
    empty = data[: match.start(1)] + NO_CHECKSUM.encode() + data[match.end(1) :]
    digest = hashlib.blake2b(empty, digest_size=32).hexdigest().encode()
    return data[: match.start(1)] + digest + data[match.end(1) :]


def restores(model: engine.Model, path: Path) -> bool:
    """True: restored. False: refused cleanly, and nothing has changed."""
    before = model.pool.n_free, model.prefix.n_cells
    try:
        session = model.restore_session(path, engine.InferenceSessionConfig(cache_prompt=False))
    except (ModelError, ConfigError) as error:
        message = str(error)
        restored = False
    else:
        with session:
            assert 0 < len(session.tokens) <= model.n_ctx
            assert session.n_past <= len(session.tokens)
        message, restored = "", True
    assert message.isprintable()  # also: one line
    assert (model.pool.n_free, model.prefix.n_cells) == before
    model.pool.check()
    model.prefix.check()
    return restored
