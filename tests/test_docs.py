"""What the documentation says of the tests."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_tests_that_are_named_exist() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    found = re.findall(r"`(tests/[\w./]+)(?:::(\w+))?`", text)
    assert len(found) > 30
    for path, name in found:
        assert (ROOT / path).exists(), path
        if name:
            assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), (path, name)
