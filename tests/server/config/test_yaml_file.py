"""YAML files of options."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import ConfigError
from server.config import yaml_file


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"port: 1\nport: 2\n", r"options\.yml, line 2: duplicate key 'port'"),
        (b"port: [1\n", r"options\.yml, line 2: expected"),
        (b"port: \xff\n", r"options\.yml: not UTF-8 text"),
        (None, r"--config .*options\.yml: No such file or directory"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_the_place(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "options.yml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        yaml_file.read(path)


@pytest.mark.parametrize("value", [8080, None, True, "on", "a: b # c", ["x", "1"], {"é": 0.5}, 1e-9, ""])
def test_a_line_is_read_back_as_it_was(tmp_path: Path, value: object) -> None:
    path = tmp_path / "options.yml"
    path.write_text(yaml_file.line("name", value), encoding="utf-8")
    assert yaml_file.read(path) == {"name": value}
