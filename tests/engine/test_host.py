"""Memory that the host gives us, read from made-up /proc and /sys trees."""

from engine.host import host_memory, physical_cores
from engine.model.placement_types import DeviceInfo


def fake_root(tmp_path, files):
    for name, text in {
        "proc/meminfo": "MemTotal: 1000 kB\nMemFree: 100 kB\nMemAvailable: 600 kB\n",
        **files,
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return host_memory(tmp_path)


def test_host_memory_without_cgroups(tmp_path):
    assert fake_root(tmp_path, {}) == (600 << 10, 1000 << 10)


def test_host_memory_of_an_old_kernel(tmp_path):
    text = "MemTotal: 1000 kB\nMemFree: 100 kB\nCached: 200 kB\n"
    assert fake_root(tmp_path, {"proc/meminfo": text}) == (300 << 10, 1000 << 10)


def test_host_memory_in_cgroup_v2_takes_the_strictest_limit(tmp_path):
    """The strictest of all levels; cached files can be given back; `max` is no limit."""
    files = {
        "proc/self/cgroup": "0::/a/b\n",
        "sys/fs/cgroup/a/b/memory.max": "max\n",
        "sys/fs/cgroup/a/b/memory.current": "5000\n",
        "sys/fs/cgroup/a/memory.max": "400000\n",
        "sys/fs/cgroup/a/memory.current": "300000\n",
        "sys/fs/cgroup/a/memory.stat": "anon 1\ninactive_file 50000\n",
    }
    assert fake_root(tmp_path, files) == (150_000, 400_000)


def test_host_memory_in_a_cgroup_v2_container_takes_the_limit(tmp_path):
    """The path is the host's, the mount shows only our own group."""
    files = {
        "proc/self/cgroup": "0::/../../docker/xyz\n",
        "sys/fs/cgroup/memory.max": "200000\n",
        "sys/fs/cgroup/memory.current": "250000\n",
    }
    assert fake_root(tmp_path, files) == (0, 200_000)


def test_host_memory_in_cgroup_v1_takes_the_limit(tmp_path):
    files = {
        "proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/x\n",
        "sys/fs/cgroup/memory/x/memory.limit_in_bytes": "300000\n",
        "sys/fs/cgroup/memory/x/memory.usage_in_bytes": "100000\n",
        "sys/fs/cgroup/memory/x/memory.stat": "total_inactive_file 40000\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": "100000\n",
    }
    assert fake_root(tmp_path, files) == (240_000, 300_000)


def test_host_memory_without_proc_is_estimated(tmp_path):
    free, total = host_memory(tmp_path)
    assert 0 < free <= total


def test_host_memory_of_this_machine_is_positive():
    free, total = host_memory()
    assert 0 < free <= total


def test_the_cpu_has_the_memory_of_the_host():
    """ggml tells the physical total as free; devices that tell nothing share the host's memory."""

    def info(**kw):
        return DeviceInfo.of(DeviceInfo(name="D", backend="B", **kw), (7, 8))

    cpu = info(type="cpu", free=100, total=100)
    assert (cpu.free, cpu.total) == (7, 8)
    silent = info(type="igpu", free=0, total=0)
    assert (silent.free, silent.total) == (7, 8)
    gpu = info(type="gpu", free=5, total=6)
    assert (gpu.free, gpu.total) == (5, 6)
    assert (
        DeviceInfo.of(DeviceInfo(name="D", backend="B", type="cpu", free=1, total=1)).total
        == host_memory()[1]
    )


def cores(tmp_path, cpus, files):
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return physical_cores(tmp_path, cpus)


def topology(*places):
    """Files that put processor i at (package, core) places[i]."""
    folder = "sys/devices/system/cpu/cpu{}/topology/{}"
    return {
        folder.format(i, name): f"{n}\n"
        for i, place in enumerate(places)
        for name, n in zip(("physical_package_id", "core_id"), place, strict=True)
    }


def test_hyper_threads_of_a_core_count_once(tmp_path):
    two_sockets = topology((0, 0), (0, 1), (0, 0), (0, 1), (1, 0), (1, 0))
    assert cores(tmp_path, range(6), two_sockets) == 3
    assert physical_cores(tmp_path, {0, 2}) == 1


def test_cores_without_topology_are_counted(tmp_path):
    assert cores(tmp_path, range(4), {}) == 4


def test_cores_in_a_container_are_limited_by_its_quota(tmp_path):
    files = {
        "proc/self/cgroup": "0::/a\n",
        "sys/fs/cgroup/a/cpu.max": "250000 100000\n",
        "sys/fs/cgroup/cpu.max": "max 100000\n",
    }
    assert cores(tmp_path, range(8), files) == 2
    files = {"sys/fs/cgroup/a/cpu.max": "50000 100000\n"}
    assert cores(tmp_path, range(8), files) == 1


def test_cores_in_cgroup_v1_are_limited_by_its_quota(tmp_path):
    files = {
        "proc/self/cgroup": "4:cpu,cpuacct:/b\n",
        "sys/fs/cgroup/cpu/b/cpu.cfs_quota_us": "300000\n",
        "sys/fs/cgroup/cpu/b/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
    }
    assert cores(tmp_path, range(8), files) == 3
