"""How much memory and how many cores this process may use; ggml only reports what the machine has."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path


def host_memory(root: str | os.PathLike[str] = "/") -> tuple[int, int]:
    """(free, total) bytes that this process may use: the machine's, limited by its cgroups.

    Memory that the kernel would reclaim, such as cached files, counts as free. root: for tests.
    """
    base = Path(root)
    free, total = _meminfo(base) or _elsewhere()
    for limit, used in _memory_limits(base):
        total = min(total, limit)
        free = min(free, max(limit - used, 0))
    return min(free, total), total


def _meminfo(base: Path) -> tuple[int, int] | None:
    fields = _numbers(base / "proc/meminfo")
    if "MemTotal:" not in fields:
        return None
    total = fields["MemTotal:"]
    # kernels before 3.14 have no MemAvailable
    free = fields.get("MemAvailable:", fields.get("MemFree:", 0) + fields.get("Cached:", 0))
    return free << 10, total << 10


def _memory_limits(base: Path) -> Iterator[tuple[int, int]]:
    """(limit, used) bytes of each memory cgroup of this process."""
    for unified, group in _cgroups(base, "memory"):
        limit, used, cached = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
        if unified:
            limit, used, cached = "memory.max", "memory.current", "inactive_file"
        bound, usage = _number(group / limit), _number(group / used)
        if bound is not None and usage is not None:
            yield bound, max(usage - _numbers(group / "memory.stat").get(cached, 0), 0)


def _cgroups(base: Path, controller: str) -> Iterator[tuple[bool, Path]]:
    """(whether it is of version 2, its directory) of this process's cgroups, and of those above them."""
    for line in _text(base / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        unified = number == "0" and not controllers
        if not unified and controller not in controllers.split(","):
            continue
        mount = base / "sys/fs/cgroup" if unified else base / "sys/fs/cgroup" / controller
        parts = [p for p in path.split("/") if p not in ("", "..")]
        # every level has a limit; in a container the path may be the host's, and the mount's root is ours
        for depth in range(len(parts), -1, -1):
            yield unified, mount.joinpath(*parts[:depth])


def physical_cores(root: str | os.PathLike[str] = "/", cpus: Iterable[int] | None = None) -> int:
    """Cores that this process may use, limited by cgroup quotas. Hyper-threads of one core count once.

    Matrix products keep a core's arithmetic units busy, so its second thread would only compete. cpus: for
    tests.
    """
    base = Path(root)
    if cpus is None:
        cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    cores = set()
    for cpu in cpus:
        topology = base / f"sys/devices/system/cpu/cpu{cpu}/topology"
        core = _number(topology / "core_id")
        cores.add((_number(topology / "physical_package_id"), cpu if core is None else core, core is None))
    n = float(len(cores))
    for quota in _cpu_quotas(base):
        n = min(n, quota)
    return max(int(n), 1)


def _cpu_quotas(base: Path) -> Iterator[float]:
    """The quota of each CPU cgroup of this process, in processors."""
    for unified, group in _cgroups(base, "cpu"):
        if unified:
            quota, _, period = _text(group / "cpu.max").partition(" ")
        else:
            quota, period = _text(group / "cpu.cfs_quota_us"), _text(group / "cpu.cfs_period_us")
        if quota.strip().isdecimal() and period.strip().isdecimal() and int(period):
            yield int(quota) / int(period)


def _elsewhere() -> tuple[int, int]:
    """(free, total) on systems without /proc. Where nothing is known, a size that every machine has."""
    try:
        memory = importlib.import_module("psutil").virtual_memory()
        return int(memory.available), int(memory.total)
    except ImportError:
        pass
    total = 4 << 30
    if sys.platform != "win32":
        with contextlib.suppress(ValueError, OSError):
            total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return total // 2, total


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdecimal() else None


def _numbers(path: Path) -> dict[str, int]:
    """`name value …` lines."""
    pairs = (line.split() for line in _text(path).splitlines())
    return {p[0]: int(p[1]) for p in pairs if len(p) > 1 and p[1].isdecimal()}
