"""What commands show of a download: the plan before it, then the progress."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any

from server import logs
from server.cli.console import LoadProgress
from server.config.settings import Settings
from server.models.hub.choice import RepoFile
from server.models.hub.download import Download, header
from server.models.progress import Report, size_text
from server.models.resolver import Pulling

# Enough for the metadata and the vocabulary of most models, and of all.
HEADER_BYTES = (8 << 20, 64 << 20)
TIMEOUT_S = 60
_ONE_VALUE = ("use_gpu", "gpu_layers", "cpu_moe", "n_cpu_moe", "context_size", "parallel", "kv_type")
_REPEATED = ("override_tensor", "device")
PLAN_OPTIONS = (*_ONE_VALUE, *_REPEATED)


def pulling(settings: Settings, bar: LoadProgress) -> Pulling:
    """How commands pull: the log shows what will be downloaded and whether it fits, then the progress."""

    def announce(plan: Download) -> None:
        logs.log.info("pulling %s", plan)
        logs.log.info("%s", fit(plan, settings))

    return Pulling(free_memory, announce, report_to(bar))


def report_to(bar: LoadProgress) -> Report:
    return lambda p: bar(
        f"{p.name} ({p.status})" if p.status != "downloading" else p.name, p.fraction, p.sizes
    )


def free_memory() -> int | None:
    """Free bytes on all devices, determined in a separate process, as by `fit`; None if that fails."""
    rows: Any = _command("devices", "--json")
    if not isinstance(rows, list):
        return None
    return sum(int(row["free"]) for row in rows)


def fit(plan: Download, settings: Settings) -> str:
    """Whether the model would fit and where its layers would go, from the headers of its files."""
    problem = "its header cannot be read"
    for n_bytes in HEADER_BYTES:
        with tempfile.TemporaryDirectory(prefix="ggserve-") as name:
            for file in plan.model.files:
                _outline(plan, file, Path(name), n_bytes)
            path = Path(name, PurePosixPath(plan.model.path).name)
            answer = _command("info", str(path), "--plan", "--json", *_flags(settings))
        if isinstance(answer, dict):
            return summary(answer)
        problem = str(answer or problem).replace(str(path), path.name)
        if all(file.size <= n_bytes for file in plan.model.files):
            break
    return f"cannot tell whether it will fit: {problem}"


def summary(answer: dict[str, Any]) -> str:
    """The output of `ggserve info --plan --json` on one line."""
    if not answer["fits"]:
        return f"does not fit: {answer['problem']}"
    devices = answer["devices"]
    needed = size_text(sum(device["needed"] for device in devices.values()))
    layers: list[str] = answer["layers"]
    counts = {name: layers.count(name) for name in dict.fromkeys(layers)}
    if len(counts) == 1:
        where = f"all layers on {layers[0]}"
    else:
        where = ", ".join(f"{n} of {len(layers)} layers on {name}" for name, n in counts.items())
    return f"needs {needed} of memory, fits with {where}"


def _outline(plan: Download, file: RepoFile, folder: Path, n_bytes: int) -> None:
    """A sparse file of the right size that contains only the first bytes, which is enough to plan with."""
    with Path(folder, PurePosixPath(file.path).name).open("wb") as outline:
        outline.write(header(plan, file, min(n_bytes, file.size)))
        outline.truncate(file.size)


def _flags(settings: Settings) -> list[str]:
    values = {name: [getattr(settings, name)] for name in _ONE_VALUE if name in settings.model_fields_set}
    values |= {name: getattr(settings, name) for name in _REPEATED}
    return [
        f"--{name.replace('_', '-')}={str(value).lower() if isinstance(value, bool) else value}"
        for name, each in values.items()
        for value in each
    ]


def _command(*arguments: str) -> Any:
    """The JSON that a command prints, or else its output as text. This process never touches a device."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "server", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        return json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return "the devices did not answer in time"
    except ValueError:
        return (done.stderr.strip().splitlines() or [""])[-1].removeprefix("ggserve: ")
