"""Our C++ compiles for CPUs other than the one that builds it, in particular those in between."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ggml.fetch import pinned_package
from support.quick import every

KERNELS = Path(__file__).parents[3] / "engine" / "graph" / "kernels"
CPUS = {
    "x86_64": ("x86-64", "nehalem", "ivybridge", "haswell", "skylake-avx512", "icelake-server"),
    "aarch64": ("armv8-a", "armv8.2-a+fp16"),
}


SOURCES = sorted(str(p.relative_to(KERNELS)) for p in KERNELS.rglob("*.cpp"))
TARGETED = [  # for this architecture
    str(p.relative_to(KERNELS))
    for p in sorted(KERNELS.rglob("*.cpp"))
    if "GGSERVE_TARGET(" in p.read_text() and (p.stem == "neon") == (platform.machine() == "aarch64")
]


@pytest.mark.parametrize("cpu", every(9, CPUS.get(platform.machine(), ("native",))))
@pytest.mark.parametrize("source", every(5, SOURCES))
def test_kernels_compile_for_each_target(cpu: str, source: str) -> None:
    include = pinned_package() / "vendor" / "llama.cpp" / "ggml" / "include"
    command = ["c++", "-std=c++17", "-fsyntax-only", f"-march={cpu}", f"-I{include}", f"-I{KERNELS}", source]
    done = subprocess.run(command, cwd=KERNELS, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="reads GNU nm's letters for symbols")
@pytest.mark.exhaustive  # compiles
@pytest.mark.parametrize("source", TARGETED)
def test_the_linker_shares_no_function_of_a_file_with_a_target(source: str, tmp_path: Path) -> None:
    """It would keep one copy for all files, and a processor that lacks the target would run into it."""
    include = pinned_package() / "vendor" / "llama.cpp" / "ggml" / "include"
    command = ["c++", "-std=c++17", "-O3", "-w", "-fPIC", "-c", f"-I{include}", f"-I{KERNELS}", source]
    subprocess.run([*command, "-o", str(tmp_path / "o")], cwd=KERNELS, timeout=120, check=True)
    symbols = subprocess.run(["nm", str(tmp_path / "o")], capture_output=True, text=True, check=True).stdout
    assert [line for line in symbols.splitlines() if line[17:18] in tuple("WVu")] == []
    assert re.search(r"_(vectors|kernels)E$", symbols, re.M)
