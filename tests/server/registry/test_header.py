"""What a model file says of a model that is not loaded."""

from __future__ import annotations

from pathlib import Path

from server.registry.header import read_header
from support.builders.golden import FOLDER
from support.fakes.engine import STORIES


def test_header_has_the_models_sizes() -> None:
    header = read_header(STORIES)
    assert (header["architecture"], header["n_ctx_train"], header["n_embd"]) == ("llama", 512, 256)
    assert header["n_params"] == 2_885_888
    assert header["size_bytes"] < STORIES.stat().st_size
    assert (header["generates"], header["takes_tools"]) == (True, False)


def test_embedding_model_does_not_generate() -> None:
    assert read_header(FOLDER / "bert.gguf")["generates"] is False


def test_a_file_that_is_not_a_model_has_no_header(tmp_path: Path) -> None:
    (tmp_path / "junk.gguf").write_bytes(b"junk")
    assert read_header(tmp_path / "junk.gguf") == {}
    assert read_header(tmp_path / "absent.gguf") == {}
