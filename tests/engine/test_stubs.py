"""The type stubs of compiled modules have the names and signatures of what was compiled."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in (ROOT / "engine").glob("**/*.pyx")
)
# What Cython adds, constants that a module imports for its own use, and classes that cannot be instantiated.
ALLOWED = r""".*__reduce_cython__
.*__setstate_cython__
.*__pyx_capi__
.*__test__
engine\.graph\.(ops\.packed\.I8|model_runner\.MASK_PAD)
engine\.ggml\.(backend|tensor)\.(Buffer|BufferType|Device|Graph|Tensor)\.__init__
"""


@pytest.mark.e2e
def test_stubs_match_the_compiled_modules(tmp_path: Path) -> None:
    (tmp_path / "allowed").write_text(ALLOWED)
    options = ["--concise", "--ignore-unused-allowlist", "--ignore-disjoint-bases"]
    options += ["--allowlist", str(tmp_path / "allowed"), "--mypy-config-file", "pyproject.toml"]
    result = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", *MODULES, *options], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_compiled_module_has_a_stub() -> None:
    stubs = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in ROOT.glob("engine/**/*.pyi")}
    assert stubs - {"engine.__init__"} == set(
        MODULES
    )  # which declares the names that are resolved on first use
