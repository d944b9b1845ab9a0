"""The module is there so that the server starts without Jinja."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]


def test_the_server_imports_neither_jinja_nor_yaml_at_its_start() -> None:
    code = "import sys, server.cli.serving, server.app; print(*{'jinja2', 'yaml'} & {*sys.modules})"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    assert result.stdout == "\n"
