"""Build ggml (see ggml/build.py) and the Cython modules; everything declarative is in pyproject.toml."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Any

import Cython
from Cython.Build import cythonize
from Cython.Compiler.Errors import CompileError
from setuptools import Extension, setup
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
os.chdir(ROOT)
sys.path.insert(0, str(ROOT))  # the build backend does not add the project's directory

from ggml.build import Built, check, digest, jobs  # noqa: E402
from ggml.build import build as build_ggml  # noqa: E402
from ggml.fetch import BuildError, fail  # noqa: E402

DIRECTIVES: dict[str, Any] = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,
    "embedsignature": True,
}
# The kernels, a file for each instruction set: one module has them all, and the choice.
MORE_SOURCES = {"engine.graph.ops.packed": ("engine/graph/kernels/**/*.cpp",)}
# What setuptools does not take for part of the package, and where it goes.
COPIES = {
    Path("models/stories.gguf"): Path("server/models/stories.gguf"),
    Path("configs/models.yml"): Path("server/models/models.yml"),
}


def compile_args(built: Built) -> list[str]:
    args = [
        "-std=c++17",
        "-O3",
        "-g0",
        "-fvisibility=hidden",
        "-ffp-contract=off",  # kernels say themselves where a product and a sum are rounded once
        "-Wno-deprecated-declarations",
        "-Wno-maybe-uninitialized",
    ]
    if sys.platform == "win32":
        args.append("-DMS_WIN64")  # Python's headers define it for Microsoft's compiler only
        # GCC does not align 32-byte vectors on Windows' stack (GCC bug 54412).
        args.append("-Wa,-muse-unaligned-vector-move")
    machine = platform.machine().lower()
    if built.native and sys.platform == "linux":
        args.append("-mcpu=native" if machine in ("aarch64", "arm64") else "-march=native")
    elif machine in ("x86_64", "amd64"):
        args.append("-march=x86-64")
    return args


def link_args(built: Built, depth: int) -> list[str]:
    """Link ggml, found at run time in engine/lib, `depth` directories above the extension module."""
    if sys.platform == "win32":  # found through engine/__init__.py; MinGW's libraries are linked statically
        return [*(str(built.lib / name) for name in ("ggml.dll", "ggml-base.dll")), "-static"]
    libraries = [f"-L{built.lib}", "-lggml", "-lggml-base"]
    up = "../" * depth + "lib"
    if sys.platform == "darwin":
        return [*libraries, f"-Wl,-rpath,@loader_path/{up}"]
    return ["-Wl,--as-needed", *libraries, f"-Wl,-rpath,$ORIGIN/{up}"]


def extensions(built: Built) -> list[Extension]:
    """One extension per .pyx; a `# distutils: sources = …/x.cpp` line or MORE_SOURCES add C++ files to it."""
    headers = [str(p) for p in sorted(Path("engine").rglob("*.h"))]
    modules = [
        Extension(
            name := ".".join(path.with_suffix("").parts),
            [str(path), *(str(p) for glob in MORE_SOURCES.get(name, ()) for p in sorted(Path().glob(glob)))],
            include_dirs=[str(built.include), str(ROOT), str(ROOT / "engine" / "graph" / "kernels")],
            extra_compile_args=compile_args(built),
            extra_link_args=link_args(built, len(path.parts) - 2),
            depends=["setup.py", *headers],
            language="c++",
        )
        for path in sorted(Path("engine").rglob("*.pyx"))
    ]
    if not modules:
        return []
    # The folder's name covers what affects the generated code besides the .pyx, so nothing stale is reused.
    stamp = digest([Cython.__version__, repr(DIRECTIVES)])
    try:
        result: list[Extension] = cythonize(
            modules,
            build_dir=f"build/cython-{stamp}",
            compiler_directives=DIRECTIVES,
            nthreads=jobs() if sys.platform == "linux" else 0,
        )
    except CompileError as error:  # Cython has printed the place and the reason
        raise BuildError(f"Cython could not compile {error}") from None
    return result


class Build(build):
    """Separate build folders for different flags and Python versions."""

    def initialize_options(self) -> None:
        super().initialize_options()
        self.build_base = BuildExt.base
        self.build_lib = f"{BuildExt.base}/lib"
        self.build_temp = f"{BuildExt.base}/temp"


class BuildExt(build_ext):
    """Compile incrementally, also for editable installs, and copy ggml's libraries into engine/lib."""

    built: Built
    base = "build"

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or jobs()
        if sys.platform == "win32":  # Microsoft's compiler lacks the vector extensions that our kernels use
            self.compiler = self.compiler or "mingw32"
        # By default an editable install uses temporary folders and compiles everything every time.
        self.build_temp = f"{self.base}/temp"
        if self.inplace:
            self.build_lib = f"{self.base}/lib"

    def run(self) -> None:
        self.place_libraries()
        if self.extensions:
            super().run()

    def place_libraries(self) -> None:
        place = Path("engine/lib") if self.inplace else Path(self.build_lib, "engine", "lib")
        place.mkdir(parents=True, exist_ok=True)
        wanted = {path.name: path for path in self.built.libraries()}
        for old in place.iterdir():
            if old.name not in wanted:
                old.unlink()
        for name, source in wanted.items():
            target, facts = place / name, source.stat()
            if target.is_file():
                now = target.stat()
                if (now.st_size, now.st_mtime_ns) == (facts.st_size, facts.st_mtime_ns):
                    continue
            # Replace the file, do not overwrite it: a running process may have it mapped.
            shutil.copy2(source, target.with_suffix(".new"))
            target.with_suffix(".new").replace(target)


class BuildPy(build_py):
    """Copy data files into the installed `server` package; a checkout reads them where they are."""

    def run(self) -> None:
        if not self.editable_mode:
            for old in Path(self.build_lib).rglob("*"):  # its source may be gone since that build
                if old.is_file() and old.suffix not in (".so", ".dylib", ".metallib", ".dll", ".pyd"):
                    old.unlink()
        super().run()
        if not self.editable_mode:
            for source, target in COPIES.items():
                shutil.copy2(source, Path(self.build_lib, target))


def main() -> None:
    modules: list[Extension] = []
    # Source distributions and metadata need no compiler.
    if {"build_ext", "build", "bdist_wheel", "editable_wheel"} & set(sys.argv):
        try:
            check()
            built = BuildExt.built = build_ggml()
            stamp = digest([built.key, *compile_args(built), *link_args(built, 0)])
            BuildExt.base = f"build/{sys.implementation.cache_tag}-{stamp}"
            modules = extensions(built)
        except BuildError as error:
            fail(error)
    commands = {"build": Build, "build_ext": BuildExt, "build_py": BuildPy}
    setup(ext_modules=modules, cmdclass=commands, zip_safe=False)


main()
