"""A CUDA toolkit from the Python index, for builds: `CUDA_PATH=$(python ggml/cuda.py)`.

NVIDIA's packages contain the compiler, the headers and cuBLAS, but not the file names that linkers look for.
They are kept in the user's cache (840 MB) and need no root. An installed toolkit works as well.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

if __package__ in (None, ""):  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ggml import fetch
from ggml.fetch import BuildError, say

# The packages of one release of the toolkit; NVIDIA numbers them separately.
RELEASE = "13.0"
PACKAGES = (
    "nvidia-cuda-nvcc==13.0.88",
    "nvidia-cuda-crt==13.0.88",
    "nvidia-nvvm==13.0.88",
    "nvidia-cuda-runtime==13.0.96",
    "nvidia-cuda-cccl==13.0.85",
    "nvidia-cublas==13.0.2.14",
)
INSIDE = Path("nvidia", "cu13")


def link(root: Path) -> None:
    """Add what the packages lack: lib64, which nvcc searches, and library names without a version."""
    lib = root / "lib"
    if not (root / "lib64").exists():
        (root / "lib64").symlink_to("lib")
    for path in sorted(lib.glob("lib*.so.*")):
        name = lib / f"{path.name.partition('.so.')[0]}.so"
        if not name.exists():
            name.symlink_to(path.name)


def toolkit() -> Path:
    """The toolkit's folder, for CUDA_PATH; downloaded with pip if it is not in the cache."""
    if sys.platform != "linux":
        raise BuildError(
            "on this system, install the CUDA toolkit with NVIDIA's installer and set CUDA_PATH to it"
        )
    target = fetch.cache_dir() / f"cuda-{RELEASE}"
    with fetch.locked("cuda"):
        if not target.is_dir():
            stage = target.with_name(f"{target.name}.new")
            shutil.rmtree(stage, ignore_errors=True)
            install(stage)
            link(stage / INSIDE)
            stage.rename(target)
    return target / INSIDE


def install(target: Path) -> None:
    say(f"downloading the CUDA {RELEASE} toolkit with pip (530 MB, once; kept in {fetch.cache_dir()})")
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--only-binary", ":all:", "--quiet"]
    command += ["--no-input", "--disable-pip-version-check", "--target", str(target), *PACKAGES]
    start = time.monotonic()

    def progress() -> str:
        return f"downloading the CUDA toolkit: {time.monotonic() - start:.0f} s"

    process = subprocess.Popen(command, stdout=sys.stderr)
    try:
        status = fetch.wait(process, progress, every=10)
    finally:
        process.kill()
    if status:
        raise BuildError(
            "pip could not install NVIDIA's packages (see above); or install a toolkit and set CUDA_PATH"
        )


def main() -> None:
    try:
        print(toolkit())
    except BuildError as error:
        fetch.fail(error)


if __name__ == "__main__":
    main()
