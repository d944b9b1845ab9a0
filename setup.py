"""Builds ggml (see ggml/build.py) and the Cython modules; everything declarative is in pyproject.toml."""

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
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
os.chdir(ROOT)
sys.path.insert(0, str(ROOT))  # the build backend does not put the project's directory there

from ggml.build import Built, build, digest, jobs  # noqa: E402
from ggml.fetch import BuildError, fail  # noqa: E402

DIRECTIVES: dict[str, Any] = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,
    "embedsignature": True,
}
MODEL = Path("models/stories.gguf")


def compile_args(built: Built) -> list[str]:
    if os.name == "nt":
        return ["/std:c++17", "/O2"]
    args = ["-std=c++17", "-O3", "-g0", "-fvisibility=hidden", "-Wno-deprecated-declarations"]
    machine = platform.machine().lower()
    if built.native and sys.platform == "linux":
        args.append("-mcpu=native" if machine in ("aarch64", "arm64") else "-march=native")
    elif machine in ("x86_64", "amd64"):
        args.append("-march=x86-64")
    return args


def link_args(depth: int) -> list[str]:
    """Find ggml in engine/lib, `depth` directories above the extension module."""
    up = "../" * depth + "lib"
    if sys.platform == "darwin":
        return [f"-Wl,-rpath,@loader_path/{up}"]
    return [] if os.name == "nt" else [f"-Wl,-rpath,$ORIGIN/{up}", "-Wl,--as-needed"]


def extensions(built: Built) -> list[Extension]:
    """One extension per .pyx; a `# distutils: sources = engine/kernels/x.cpp` line adds C++ files to it."""
    headers = [str(p) for p in sorted(Path("engine").rglob("*.h"))]
    modules = [
        Extension(
            ".".join(path.with_suffix("").parts),
            [str(path)],
            include_dirs=[str(built.include), str(ROOT), str(ROOT / "engine" / "kernels")],
            library_dirs=[str(built.lib)],
            libraries=["ggml", "ggml-base"],
            extra_compile_args=compile_args(built),
            extra_link_args=link_args(len(path.parts) - 2),
            depends=["setup.py", *headers],
            language="c++",
        )
        for path in sorted(Path("engine").rglob("*.pyx"))
    ]
    if not modules:
        return []
    # The name covers what decides the generated text besides the .pyx itself: nothing stale is ever reused.
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


class BuildExt(build_ext):
    """Compiles incrementally, also for editable installs, and puts ggml's libraries into engine/lib."""

    built: Built

    def finalize_options(self) -> None:
        super().finalize_options()
        if self.parallel is None:
            self.parallel = jobs()
        # Ours instead of the temporary directories of an editable install, and apart per set of flags.
        stamp = f"{sys.implementation.cache_tag}-{digest([self.built.key, *compile_args(self.built)])}"
        self.build_temp = f"build/temp-{stamp}"
        if self.inplace:
            self.build_lib = f"build/inplace-{stamp}"

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
            # Replaced, not written into: a running process may have the old one mapped.
            shutil.copy2(source, target.with_suffix(".new"))
            target.with_suffix(".new").replace(target)


class BuildPy(build_py):
    """Adds the bundled model to the installed `server` package; a checkout reads models/ itself."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode and MODEL.is_file():
            target = Path(self.build_lib, "server", MODEL)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(MODEL, target)


# Making a source distribution or asking for metadata needs no compiler.
if {"build_ext", "build", "bdist_wheel", "editable_wheel", "develop", "install"} & set(sys.argv):
    try:
        BuildExt.built = build()
        MODULES = extensions(BuildExt.built)
    except BuildError as error:
        fail(error)
else:
    MODULES = []

setup(ext_modules=MODULES, cmdclass={"build_ext": BuildExt, "build_py": BuildPy}, zip_safe=False)
