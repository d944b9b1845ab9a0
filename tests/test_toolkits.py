"""How backends.cmake finds toolkits: each variable on made-up trees, and one line where one is missing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from ggml import cuda

ROOT = Path(__file__).resolve().parents[1]
PROJECT = """
cmake_minimum_required(VERSION 3.18...3.31)
project(toolkits C)
set(CMAKE_FIND_USE_CMAKE_SYSTEM_PATH OFF)  # nothing of this machine
set(CMAKE_FIND_USE_SYSTEM_ENVIRONMENT_PATH OFF)
set(CMAKE_FIND_USE_PACKAGE_REGISTRY OFF)
include("{cmake}")
message("OpenCL ${{OpenCL_LIBRARY}} ${{OpenCL_INCLUDE_DIR}}")
message("CLBlast ${{CLBLAST_LIBRARY}} ${{CLBLAST_INCLUDE_DIR}}")
message("Vulkan ${{Vulkan_LIBRARY}} ${{Vulkan_INCLUDE_DIR}} ${{Vulkan_GLSLC_EXECUTABLE}}")
message("CUDA ${{CMAKE_CUDA_COMPILER}} ${{CUDA_cublas_LIBRARY}} without VMM: ${{GGML_CUDA_NO_VMM}}")
"""
# What CMake asks of a CUDA compiler before it compiles anything.
NVCC = """#!/bin/sh
echo "Cuda compilation tools, release 13.0, V13.0.88"
"""


def tree(root: Path) -> Path:
    """OpenCL and CLBlast as they are installed, with nothing in them."""
    for name in ("include/CL/cl.h", "include/clblast_c.h", "lib/libOpenCL.so", "lib/libclblast.so"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def cuda_tree(root: Path) -> Path:
    """A CUDA toolkit as NVIDIA's packages lay it out, without cuBLAS and without the driver's stub."""
    for name in ("include/cuda_runtime.h", "lib/libcudart.so"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    nvcc = root / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text(NVCC)
    nvcc.chmod(0o755)
    return root


def vulkan_tree(root: Path, version: int) -> Path:
    """A Vulkan SDK with headers 1.4.`version`."""
    for name in ("include/vulkan/vulkan.h", "lib/libvulkan.so", "bin/glslc"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (root / "bin" / "glslc").chmod(0o755)
    header = f"#define VK_HEADER_VERSION {version}\n"
    (root / "include" / "vulkan" / "vulkan_core.h").write_text(header)
    return root


def configure(tmp_path: Path, backends: str, **environment: str) -> tuple[int, str]:
    source = tmp_path / "source"
    source.mkdir()
    (source / "CMakeLists.txt").write_text(
        PROJECT.format(cmake=(ROOT / "ggml" / "backends.cmake").as_posix())
    )
    toolkit = ("CUDA", "OPENCL", "CLBLAST", "CBLAST", "VULKAN")
    env = {key: value for key, value in os.environ.items() if not key.startswith(toolkit)}
    done = subprocess.run(
        ["cmake", "-S", str(source), "-B", str(tmp_path / "build"), f"-DGGSERVE_BACKENDS={backends}"],
        env=env | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    "variables",
    [
        {"CLBLAST_PATH": "", "OPENCL_PATH": ""},
        {"CLBLAST_INCLUDE_PATH": "include", "CLBLAST_LIB_PATH": "lib", "OPENCL_PATH": ""},
        {"CBLAST_INCLUDE_PATH": "include", "CLBLAST_LIB_PATH": "lib", "OPENCL_PATH": ""},
        {"CLBLAST_PATH": "", "OPENCL_INCLUDE_PATH": "include", "OPENCL_LIB_PATH": "lib"},
    ],
)
def test_clblast_is_found_where_the_variables_say(variables: dict[str, str], tmp_path: Path) -> None:
    root = tree(tmp_path / "toolkits")
    status, said = configure(
        tmp_path, "cpu;clblast", **{name: str(root / at) for name, at in variables.items()}
    )
    assert status == 0, said
    assert f"OpenCL {root}/lib/libOpenCL.so {root}/include" in said
    assert f"CLBlast {root}/lib/libclblast.so {root}/include" in said


def test_the_first_variable_wins(tmp_path: Path) -> None:
    own, other = tree(tmp_path / "own"), tree(tmp_path / "other")
    status, said = configure(tmp_path, "clblast", CLBLAST_PATH=str(own), OPENCL_PATH=str(other))
    assert status == 0, said
    assert f"CLBlast {own}/lib/libclblast.so" in said


@pytest.mark.parametrize(
    "variables", [{"OPENCL_PATH": ""}, {"OPENCL_INCLUDE_PATH": "include", "OPENCL_LIB_PATH": "lib"}]
)
def test_opencl_is_found_where_the_variables_say(variables: dict[str, str], tmp_path: Path) -> None:
    root = tree(tmp_path / "toolkits")
    status, said = configure(tmp_path, "opencl", **{name: str(root / at) for name, at in variables.items()})
    assert status == 0, said
    assert f"OpenCL {root}/lib/libOpenCL.so {root}/include" in said


@pytest.mark.parametrize("apart", [False, True])
def test_cuda_is_found_where_the_variables_say(apart: bool, tmp_path: Path) -> None:
    root = cuda_tree(tmp_path / "cuda")
    place = tmp_path / "elsewhere" if apart else root / "lib"
    place.mkdir(exist_ok=True)
    (place / "libcublas.so").touch()
    more = {"CUDA_LIB_PATH": str(place)} if apart else {}
    status, said = configure(tmp_path, "cpu;cuda", CUDA_PATH=str(root), **more)
    assert status == 0, said
    assert f"CUDA {root}/bin/nvcc {place}/libcublas.so without VMM: ON" in said


def test_vulkan_is_found_where_the_variable_says(tmp_path: Path) -> None:
    root = vulkan_tree(tmp_path / "vulkan", 357)
    status, said = configure(tmp_path, "vulkan", VULKAN_SDK=str(root))
    assert status == 0, said
    assert f"Vulkan {root}/lib/libvulkan.so {root}/include {root}/bin/glslc" in said


def test_old_vulkan_headers_are_refused(tmp_path: Path) -> None:
    root = vulkan_tree(tmp_path / "vulkan", 239)
    status, said = configure(tmp_path, "vulkan", VULKAN_SDK=str(root))
    assert status != 0
    assert (
        "GGSERVE_MISSING: backend vulkan: Vulkan-Headers 280 or later (these are 239) was not found" in said
    )


def test_cuda_without_cublas_is_one_line(tmp_path: Path) -> None:
    root = cuda_tree(tmp_path / "cuda")
    status, said = configure(tmp_path, "cuda", CUDA_PATH=str(root))
    assert status != 0
    (line,) = [line for line in said.splitlines() if line.startswith("GGSERVE_MISSING: ")]
    assert f"cuBLAS was not found in the system's directories and CUDA_PATH={root}" in line
    assert "CUDA_LIB_PATH" in line


def test_the_packages_of_cuda_get_the_names_that_linkers_look_for(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    for name in ("libcublas.so.13", "libcudart.so.13", "libcudart_static.a"):
        (tmp_path / "lib" / name).write_text(name)
    cuda.link(tmp_path)
    cuda.link(tmp_path)  # nothing to do
    assert (tmp_path / "lib64" / "libcublas.so").read_text() == "libcublas.so.13"
    names = {path.name for path in (tmp_path / "lib").iterdir() if path.is_symlink()}
    assert names == {"libcublas.so", "libcudart.so"}


@pytest.mark.parametrize(
    ("backends", "environment", "expected"),
    [
        (
            "clblast",
            {},
            "clblast: OpenCL (libOpenCL, CL/cl.h) was not found in the system's directories",
        ),
        (
            "clblast",
            {"OPENCL_PATH": "{tree}"},
            "clblast: CLBlast (libclblast, clblast_c.h) was not found",
        ),
        ("opencl", {"OPENCL_PATH": "/nowhere"}, "OPENCL_PATH=/nowhere"),
        ("cuda", {"CUDA_PATH": "/nowhere"}, "backend cuda: the compiler nvcc was not found"),
        ("vulkan", {}, "backend vulkan: the Vulkan loader with its headers was not found"),
        ("metal", {}, "backend metal exists on macOS only"),
    ],
)
def test_a_missing_toolkit_is_one_line(
    backends: str, environment: dict[str, str], expected: str, tmp_path: Path
) -> None:
    root = tree(tmp_path / "toolkits")
    if backends == "clblast":
        (root / "lib" / "libclblast.so").unlink()
    given = {name: text.format(tree=root) for name, text in environment.items()}
    status, said = configure(tmp_path, backends, **given)
    assert status != 0
    (line,) = [line for line in said.splitlines() if line.startswith("GGSERVE_MISSING: ")]
    assert expected in line
    assert "set " in line or "leave it out" in line
