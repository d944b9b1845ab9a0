"""Our C++ compiles for CPUs other than the one that builds it, in particular those in between."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import pytest

from ggml.fetch import pinned_package
from support.quick import every

KERNELS = Path(__file__).parents[3] / "engine" / "graph" / "kernels"
CPUS = {
    "x86_64": ("x86-64", "nehalem", "ivybridge", "haswell", "skylake-avx512", "icelake-server"),
    "aarch64": ("armv8-a", "armv8.2-a+fp16"),
}


@pytest.mark.parametrize("cpu", every(9, CPUS.get(platform.machine(), ("native",))))
@pytest.mark.parametrize("source", sorted(str(p.relative_to(KERNELS)) for p in KERNELS.rglob("*.cpp")))
def test_compiles_for(cpu: str, source: str) -> None:
    include = pinned_package() / "vendor" / "llama.cpp" / "ggml" / "include"
    command = ["c++", "-std=c++17", "-fsyntax-only", f"-march={cpu}", f"-I{include}", f"-I{KERNELS}", source]
    done = subprocess.run(command, cwd=KERNELS, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
