"""Build the pinned ggml into the user's cache: `python ggml/build.py` prints the folder of the libraries.

With --check it only looks for a compiler and Python's headers.

The cache key covers everything that affects the result (pin, CMake files, options, compiler, CPU features),
so ggml is compiled once, and rebuilding the Python side takes seconds.

GGSERVE_BACKENDS  comma-separated: cpu, cuda, clblast, vulkan, rpc, metal, opencl (cpu is always included)
GGSERVE_NATIVE    0: build all variants of the CPU module, for any CPU of this architecture (slow)
GGSERVE_CACHE     folder for sources and libraries
GGML_SOURCE_DIR   use this ggml instead of the pinned one, for experiments
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import queue
import re
import shutil
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ggml import cpu, fetch
from ggml.fetch import HERE, PIN, BuildError, say

MISSING = "GGSERVE_MISSING: "  # backends.cmake prints this when a toolkit is missing
BACKENDS = ("cpu", "cuda", "clblast", "vulkan", "rpc", "metal", "opencl")
# Environment variables that CMake or backends.cmake reads, hence part of the key.
ENVIRONMENT = (
    *("CC", "CXX", "CFLAGS", "CXXFLAGS", "LDFLAGS", "CMAKE_ARGS", "CUDAARCHS", "CUDACXX", "VULKAN_SDK"),
    *("CUDA_PATH", "CUDA_INCLUDE_PATH", "CUDA_LIB_PATH", "MACOSX_DEPLOYMENT_TARGET", "ARCHFLAGS"),
    *("OPENCL_PATH", "OPENCL_INCLUDE_PATH", "OPENCL_LIB_PATH"),
    *("CLBLAST_PATH", "CLBLAST_INCLUDE_PATH", "CBLAST_INCLUDE_PATH", "CLBLAST_LIB_PATH"),
)


@dataclass(frozen=True)
class Built:
    """A finished build, and what extensions need to compile and link against it."""

    lib: Path  # contains only the shared libraries
    include: Path
    key: str
    native: bool

    def libraries(self) -> list[Path]:
        return sorted(path for path in self.lib.iterdir() if path.is_file())


def backends(text: str | None = None) -> list[str]:
    """The names in GGSERVE_BACKENDS, with `cpu` first. Raises BuildError for an unknown one."""
    if text is None:
        text = os.environ.get("GGSERVE_BACKENDS", "")
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    if not names:
        names = ["metal"] if sys.platform == "darwin" else []
    for name in names:
        if name not in BACKENDS:
            raise BuildError(
                f"GGSERVE_BACKENDS: unknown backend '{name}'; expected one of {', '.join(BACKENDS)}"
            )
    return ["cpu", *dict.fromkeys(name for name in names if name != "cpu")]


def native() -> bool:
    """Whether to build for this CPU (the default) or for any CPU of its architecture (GGSERVE_NATIVE=0)."""
    value = os.environ.get("GGSERVE_NATIVE", "1").strip().lower()
    if value not in ("0", "1", "false", "true", "off", "on"):
        raise BuildError(f"GGSERVE_NATIVE={value}: expected 0 or 1")
    return value in ("1", "true", "on")


def jobs() -> int:
    """The number of processors available to this process; CMAKE_BUILD_PARALLEL_LEVEL overrides it."""
    if text := os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL"):
        return max(1, int(text))
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def compiler() -> str:
    """The first line of the C++ compiler's --version."""
    command = (os.environ.get("CXX") or "c++").split()
    try:
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        what = "MinGW-w64 on the PATH" if os.name == "nt" else "Debian, Ubuntu: apt install g++"
        raise BuildError(f"no C++ compiler: cannot run '{command[0]}'; install one ({what})") from None
    return done.stdout.partition("\n")[0]


def check_python_headers() -> None:
    """Raises BuildError if there are none."""
    include = sysconfig.get_path("include")
    if not Path(include, "Python.h").is_file():
        raise BuildError(
            f"Python.h not found in {include}: install Python's headers (Debian: apt install python3-dev)"
        )


def check() -> None:
    """Raises BuildError for what would stop the build later: bad options, no compiler, no headers."""
    backends()
    native()
    compiler()
    check_python_headers()


def digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def fingerprint(ggml: Path) -> str:
    """Identifies the source: the pin, or for GGML_SOURCE_DIR the current state of its files."""
    if not os.environ.get("GGML_SOURCE_DIR"):
        return PIN["sha256"]
    files = sorted(path for path in ggml.rglob("*") if path.is_file())
    return digest(f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files)


def follow(command: list[str], log: Path, what: str, env: dict[str, str]) -> None:
    """Run `command` with its output in `log`, and report progress; on failure show the errors."""
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=env
    )

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    start = last = time.monotonic()
    steps, ended = "", False
    with log.open("a") as file, contextlib.ExitStack() as stack:
        stack.callback(process.kill)
        while not ended:
            try:
                line = lines.get(timeout=1)
            except queue.Empty:
                pass
            else:
                ended = line is None
                file.write(line or "")
                if match := re.match(r"\[\s*(\d+)(?:/(\d+)|%)\]", line or ""):
                    done, total = match.groups()
                    steps = f": {done} of {total} steps" if total else f": {done} %"
            if time.monotonic() - last >= 3:
                last = time.monotonic()
                say(f"{what}{steps}, {last - start:.0f} s")
        status = process.wait()
    if status:
        tail = log.read_text().splitlines()
        for line in tail:
            if line.startswith(MISSING):
                raise BuildError(line.removeprefix(MISSING))
        errors = [i for i, line in enumerate(tail) if "error" in line.lower() or "FAILED" in line]
        begin = max(0, min(errors[0] if errors else len(tail) - 30, len(tail) - 5))
        print("\n".join(tail[begin : begin + 40]), file=sys.stderr)
        raise BuildError(f"{what} failed; see the log: {log}")


def compile_ggml(ggml: Path, options: dict[str, str], work: Path) -> None:
    """Configure and build; the libraries are in work/lib."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    # ggml asks git for its commit and would find an unrelated repository around the cache.
    env = {**os.environ, "GIT_DIR": str(work / "no-repository"), "NINJA_STATUS": "[%f/%t] "}
    # cmake and ninja of a virtual environment that is not activated are beside its python.
    path = env["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), env.get("PATH", os.defpath)])
    cmake = shutil.which("cmake", path=path)
    if cmake is None:
        raise BuildError("cmake not found: install it (pip install cmake)")
    generator = ["-G", "Ninja"] if shutil.which("ninja", path=path) else []
    defines = [f"-D{name}={value}" for name, value in options.items()]
    extra = os.environ.get("CMAKE_ARGS", "").split()
    log = work / "build.log"
    configure = [cmake, "-S", str(HERE), "-B", str(work), *generator, f"-DGGML_DIR={ggml}", *defines, *extra]
    follow(configure, log, "configuring", env)
    follow([cmake, "--build", str(work), "--config", "Release", "-j", str(jobs())], log, "compiling", env)


@dataclass(frozen=True)
class Plan:
    """What to build, and where to put it."""

    source: Path
    options: dict[str, str]
    compiler: str
    native: bool
    key: str
    target: Path


def plan() -> Plan:
    """The build that the environment variables ask for."""
    names, is_native = backends(), native()
    version = compiler()
    source = fetch.ggml_dir()
    options = {"CMAKE_BUILD_TYPE": "Release", "GGSERVE_BACKENDS": ";".join(names)}
    options |= cpu.cmake_options() if is_native else {"GGML_CPU_ALL_VARIANTS": "ON"}
    inputs = [fingerprint(source), version, sys.platform, *(f"{k}={v}" for k, v in options.items())]
    inputs += [f"{name}={os.environ[name]}" for name in ENVIRONMENT if os.environ.get(name)]
    sources = [HERE / "CMakeLists.txt", HERE / "relax.h", *sorted(HERE.glob("*.cmake"))]
    if "clblast" in names:
        sources += sorted(path for path in (HERE / "clblast").rglob("*") if path.is_file())
    inputs += [path.read_text() for path in sources]
    key = digest(inputs)
    return Plan(source, options, version, is_native, key, fetch.cache_dir() / "ggml" / f"{PIN['ggml']}-{key}")


def build() -> Built:
    """The libraries for the current environment, compiled if they are not in the cache."""
    todo = plan()
    result = Built(todo.target, todo.source / "include", todo.key, todo.native)
    if todo.target.is_dir():
        return result
    with fetch.locked(f"build-{todo.key}"):
        if todo.target.is_dir():
            return result
        names = todo.options["GGSERVE_BACKENDS"].replace(";", ", ")
        say(f"compiling {PIN['ggml']} for {names} with {jobs()} jobs (once; kept in {todo.target})")
        start = time.monotonic()
        work = fetch.cache_dir() / "build" / todo.key
        compile_ggml(todo.source, todo.options, work)
        facts = {"key": todo.key, "compiler": todo.compiler, **PIN, **todo.options}
        collect(work / "lib", todo.target, facts)
        shutil.rmtree(work, ignore_errors=True)
        say(f"compiled in {time.monotonic() - start:.0f} s")
    return result


def collect(lib: Path, target: Path, facts: dict[str, str]) -> None:
    """Copy the libraries from the build tree to `target`, which appears complete or not at all.

    Without the variant of the CPU module that uses AMX (see cpu.py): its features besides AMX, zen4 has too.
    """
    modules = [p for p in lib.rglob("*") if p.suffix in (".so", ".dylib", ".dll", ".metallib")]
    modules = [p for p in modules if "cpu-sapphirerapids" not in p.name]
    stage = target.with_name(f"{target.name}.{os.getpid()}")
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(parents=True)
    for path in modules:
        shutil.copy2(path, stage / path.name)
    (stage / "build.json").write_text(json.dumps(facts, indent=2) + "\n")
    stage.rename(target)


def main() -> None:
    try:
        check()
        if "--check" not in sys.argv[1:]:
            print(build().lib)
    except BuildError as error:
        fetch.fail(error)


if __name__ == "__main__":
    main()
