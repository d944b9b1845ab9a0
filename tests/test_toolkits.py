"""How backends.cmake finds toolkits: each variable on made-up trees, and one line where one is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

from ggml import cuda
from support.quick import every

ROOT = Path(__file__).resolve().parents[1]
PROJECT = """
cmake_minimum_required(VERSION 3.18...3.31)
project(toolkits C)
set(CMAKE_FIND_USE_CMAKE_SYSTEM_PATH OFF)  # nothing of this machine
set(CMAKE_FIND_USE_SYSTEM_ENVIRONMENT_PATH OFF)
set(CMAKE_FIND_USE_PACKAGE_REGISTRY OFF)
set(CMAKE_HOST_SYSTEM_NAME ${{CMAKE_SYSTEM_NAME}})
include("{cmake}")
message("OpenCL ${{OpenCL_LIBRARY}} ${{OpenCL_INCLUDE_DIR}}")
message("CLBlast ${{CLBLAST_LIBRARY}} ${{CLBLAST_INCLUDE_DIR}}")
message("Vulkan ${{Vulkan_LIBRARY}} ${{Vulkan_INCLUDE_DIR}} ${{Vulkan_GLSLC_EXECUTABLE}}")
message("CUDA ${{CMAKE_CUDA_COMPILER}} ${{CUDA_cublas_LIBRARY}} without VMM: ${{GGML_CUDA_NO_VMM}}")
message("CUDA headers ${{CUDAToolkit_INCLUDE_DIRS}}")
message("Metal ${{GGML_METAL}}")
get_property(headers DIRECTORY PROPERTY INCLUDE_DIRECTORIES)
message("Headers first ${{headers}}")
"""
# What CMake asks of a CUDA compiler before it compiles anything.
NVCC = """#!/bin/sh
echo "Cuda compilation tools, release 13.0, V13.0.88"
"""


# How libraries are called that a linker takes. CMake decides by the system that it builds for.
SYSTEMS = {"Linux": "lib{}.so", "Darwin": "lib{}.dylib", "Windows": "{}.lib"}


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def library(system: str, name: str) -> str:
    return SYSTEMS[system].format(name)


def tree(root: Path, system: str = "Linux") -> Path:
    """OpenCL and CLBlast as they are installed, with nothing in them."""
    libraries = (f"lib/{library(system, name)}" for name in ("OpenCL", "clblast"))
    return touch(root, "include/CL/cl.h", "include/clblast_c.h", *libraries)


def cuda_tree(root: Path, system: str = "Linux") -> Path:
    """A CUDA toolkit as NVIDIA's packages lay it out, or on Windows its installer; without cuBLAS and without
    the driver's stub."""
    where = "lib/x64" if system == "Windows" else "lib"
    touch(root, "include/cuda_runtime.h", f"{where}/{library(system, 'cudart')}")
    nvcc = touch(root, "bin/nvcc") / "bin" / "nvcc"
    nvcc.write_text(NVCC)
    nvcc.chmod(0o755)
    return root


def vulkan_tree(root: Path, version: int, system: str = "Linux") -> Path:
    """A Vulkan SDK with headers 1.4.`version`."""
    loader = library(system, "vulkan-1" if system == "Windows" else "vulkan")
    touch(root, "include/vulkan/vulkan.h", "bin/glslc", f"lib/{loader}")
    if system == "Windows":  # which takes both for one folder; releases of CMake differ
        touch(root, f"Lib/{loader}")
    (root / "bin" / "glslc").chmod(0o755)
    header = f"#define VK_HEADER_VERSION {version}\n"
    (root / "include" / "vulkan" / "vulkan_core.h").write_text(header)
    return root


def configure(tmp_path: Path, backends: str, system: str = "Linux", **environment: str) -> tuple[int, str]:
    source = tmp_path / "source"
    source.mkdir()
    (source / "CMakeLists.txt").write_text(
        PROJECT.format(cmake=(ROOT / "ggml" / "backends.cmake").as_posix())
    )
    toolkit = ("CUDA", "OPENCL", "CLBLAST", "CBLAST", "VULKAN")
    env = {key: value for key, value in os.environ.items() if not key.startswith(toolkit)}
    # For other systems there is no compiler here, and none is needed: CMake is told not to try it.
    forced = {
        "CMAKE_SYSTEM_NAME": system,
        "CMAKE_SYSTEM_PROCESSOR": "AMD64",
        "CMAKE_C_COMPILER": "cc",
        "CMAKE_C_COMPILER_FORCED": "1",
        "CMAKE_SIZEOF_VOID_P": "8",
        "CMAKE_TRY_COMPILE_TARGET_TYPE": "STATIC_LIBRARY",
    }
    more = [f"-D{name}={value}" for name, value in forced.items()] if system != "Linux" else []
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    cmake = shutil.which("cmake", path=path)
    assert cmake
    done = subprocess.run(
        [cmake, "-S", str(source), "-B", str(tmp_path / "build"), f"-DGGSERVE_BACKENDS={backends}", *more],
        env=env | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("system", every(3, SYSTEMS))
@pytest.mark.parametrize(
    "variables",
    every(
        4,
        [
            {"CLBLAST_PATH": "", "OPENCL_PATH": ""},
            {"CLBLAST_INCLUDE_PATH": "include", "CLBLAST_LIB_PATH": "lib", "OPENCL_PATH": ""},
            {"CBLAST_INCLUDE_PATH": "include", "CLBLAST_LIB_PATH": "lib", "OPENCL_PATH": ""},
            {"CLBLAST_PATH": "", "OPENCL_INCLUDE_PATH": "include", "OPENCL_LIB_PATH": "lib"},
        ],
    ),
)
def test_clblast_is_found_where_the_variables_say(
    variables: dict[str, str], system: str, tmp_path: Path
) -> None:
    root = tree(tmp_path / "toolkits", system)
    options = {name: str(root / at) for name, at in variables.items()}
    status, output = configure(tmp_path, "cpu;clblast", system, **options)
    assert status == 0, output
    assert f"OpenCL {root}/lib/{library(system, 'OpenCL')} {root}/include" in output
    assert f"CLBlast {root}/lib/{library(system, 'clblast')} {root}/include" in output


def test_first_variable_takes_precedence(tmp_path: Path) -> None:
    own, other = tree(tmp_path / "own"), tree(tmp_path / "other")
    status, output = configure(tmp_path, "clblast", CLBLAST_PATH=str(own), OPENCL_PATH=str(other))
    assert status == 0, output
    assert f"CLBlast {own}/lib/libclblast.so" in output


@pytest.mark.parametrize("system", every(3, SYSTEMS))
@pytest.mark.parametrize(
    "variables", every(2, [{"OPENCL_PATH": ""}, {"OPENCL_INCLUDE_PATH": "include", "OPENCL_LIB_PATH": "lib"}])
)
def test_opencl_is_found_where_the_variables_say(
    variables: dict[str, str], system: str, tmp_path: Path
) -> None:
    root = tree(tmp_path / "toolkits", system)
    options = {name: str(root / at) for name, at in variables.items()}
    status, output = configure(tmp_path, "opencl", system, **options)
    assert status == 0, output
    assert f"OpenCL {root}/lib/{library(system, 'OpenCL')} {root}/include" in output


def test_opencl_of_cuda_is_found_on_windows(tmp_path: Path) -> None:
    root = touch(tmp_path / "cuda", "include/CL/cl.h", "lib/x64/OpenCL.lib")
    status, output = configure(tmp_path, "opencl", "Windows", OPENCL_PATH=str(root))
    assert status == 0, output
    assert f"OpenCL {root}/lib/x64/OpenCL.lib {root}/include" in output


@pytest.mark.parametrize("apart", every(2, [False, True]))
@pytest.mark.parametrize("system", every(2, ["Linux", "Windows"]))  # there is no CUDA for macOS
def test_cuda_is_found_where_the_variables_say(apart: bool, system: str, tmp_path: Path) -> None:
    root = cuda_tree(tmp_path / "cuda", system)
    own = root / "lib" / "x64" if system == "Windows" else root / "lib"
    place = tmp_path / "elsewhere" if apart else own
    actual = touch(place, library(system, "cublas")) / library(system, "cublas")
    more = {"CUDA_LIB_PATH": str(place)} if apart else {}
    status, output = configure(tmp_path, "cpu;cuda", system, CUDA_PATH=str(root), **more)
    assert status == 0, output
    assert f"CUDA {root}/bin/nvcc {actual} without VMM: ON" in output


@pytest.mark.parametrize("both", every(2, [False, True]))
@pytest.mark.parametrize("system", every(2, ["Linux", "Windows"]))
def test_cuda_headers_in_another_folder_are_found(system: str, both: bool, tmp_path: Path) -> None:
    root, other = cuda_tree(tmp_path / "cuda", system), touch(tmp_path / "other", "cuda_runtime.h")
    touch(root, "lib/" + library(system, "cublas"))
    if not both:
        (root / "include" / "cuda_runtime.h").unlink()
    status, output = configure(tmp_path, "cuda", system, CUDA_PATH=str(root), CUDA_INCLUDE_PATH=str(other))
    assert status == 0, output
    assert f"Headers first {other}" in output
    assert f"CUDA headers {root / 'include' if both else other}" in output


@pytest.mark.parametrize("system", every(3, SYSTEMS))
def test_vulkan_is_found_where_the_variable_says(system: str, tmp_path: Path) -> None:
    root = vulkan_tree(tmp_path / "vulkan", 357, system)
    status, output = configure(tmp_path, "vulkan", system, VULKAN_SDK=str(root))
    assert status == 0, output
    loader = library(system, "vulkan-1" if system == "Windows" else "vulkan")
    output = output.replace(f"{root}/Lib/", f"{root}/lib/")
    assert f"Vulkan {root}/lib/{loader} {root}/include {root}/bin/glslc" in output


def test_metal_is_built_on_macos(tmp_path: Path) -> None:
    status, output = configure(tmp_path, "cpu;metal", "Darwin")
    assert status == 0, output
    assert "Metal ON" in output


def test_old_vulkan_headers_are_refused(tmp_path: Path) -> None:
    root = vulkan_tree(tmp_path / "vulkan", 239)
    status, output = configure(tmp_path, "vulkan", VULKAN_SDK=str(root))
    assert status != 0
    assert (
        "GGSERVE_MISSING: backend vulkan: Vulkan-Headers 280 or later (these are 239) was not found" in output
    )


def test_cuda_without_cublas_is_reported_in_one_line(tmp_path: Path) -> None:
    root = cuda_tree(tmp_path / "cuda")
    status, output = configure(tmp_path, "cuda", CUDA_PATH=str(root))
    assert status != 0
    (line,) = [line for line in output.splitlines() if line.startswith("GGSERVE_MISSING: ")]
    assert f"cuBLAS was not found in the system's directories and CUDA_PATH={root}" in line
    assert "CUDA_LIB_PATH" in line


def test_cuda_packages_get_the_names_linkers_look_for(tmp_path: Path) -> None:
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
    every(
        4,
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
    ),
)
def test_a_missing_toolkit_is_reported_in_one_line(
    backends: str, environment: dict[str, str], expected: str, tmp_path: Path
) -> None:
    root = tree(tmp_path / "toolkits")
    if backends == "clblast":
        (root / "lib" / "libclblast.so").unlink()
    options = {name: text.format(tree=root) for name, text in environment.items()}
    status, output = configure(tmp_path, backends, **options)
    assert status != 0
    (line,) = [line for line in output.splitlines() if line.startswith("GGSERVE_MISSING: ")]
    assert expected in line
    assert "set " in line or "leave it out" in line
