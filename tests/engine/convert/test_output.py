"""Keys have the types that GGUF files use for such values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import pytest

from engine.convert.output import add_key
from engine.gguf import GGUFFile, ValueType


@pytest.mark.parametrize(
    ("value", "type", "n"),
    [
        (True, ValueType.BOOL, None),
        (7, ValueType.UINT32, None),
        (0.5, ValueType.FLOAT32, None),
        ("é", ValueType.STRING, None),
        (["a", "b"], ValueType.STRING, 2),
        ([1, 2, 3], ValueType.INT32, 3),
        ([True, False], ValueType.BOOL, 2),
    ],
)
def test_add_key_writes_the_type_of_the_value(
    value: Any, type: ValueType, n: int | None, tmp_path: Path
) -> None:
    writer = gguf.GGUFWriter(tmp_path / "out.gguf", "x")
    add_key(writer, "key", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with GGUFFile.open(tmp_path / "out.gguf") as file:
        assert file.value_type("key") == (type, n)
        assert file.metadata["key"] == value
