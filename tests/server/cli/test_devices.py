"""The devices of this machine, as a table and for programs."""

from __future__ import annotations

import json

import pytest

from server.cli import devices
from support.server_process import ROOT, ggserve, mistakes

MODEL = ROOT / "models" / "stories.gguf"


def test_devices_prints_a_table_or_json():
    table = ggserve("devices")
    assert table.returncode == 0
    assert table.stdout.splitlines()[0].split()[:4] == ["NAME", "BACKEND", "TYPE", "FREE"]
    data = json.loads(ggserve("devices", "--json").stdout)
    assert [set(device) for device in data] == [
        {"name", "backend", "type", "description", "free", "total", "kernels"} for _ in data
    ]
    assert any(device["type"] == "cpu" and device["total"] > 0 for device in data)


@pytest.mark.e2e
def test_cpu_kernels_can_be_forced(monkeypatch):
    monkeypatch.setenv("GGSERVE_CPU_KERNELS", "portable")
    assert "(kernels: portable)" in ggserve("devices").stdout
    monkeypatch.setenv("GGSERVE_CPU_KERNELS", "sse9")
    for command in (("devices",), ("infer", "--model", str(MODEL), "-p", "x")):
        line = mistakes(ggserve(*command), 2)
        assert line.startswith("ggserve: GGSERVE_CPU_KERNELS=sse9: unknown; this build has ")


def test_the_table_of_devices_is_aligned():
    one = {
        "name": "CUDA0",
        "backend": "CUDA",
        "type": "gpu",
        "description": "x",
        "free": 2**30,
        "total": 2**31,
        "kernels": None,
    }
    two = {
        "name": "CPU",
        "backend": "CPU",
        "type": "cpu",
        "description": "y",
        "free": 0,
        "total": 2**36,
        "kernels": "avx2",
    }
    assert devices.table([one, two]).splitlines() == [
        "NAME   BACKEND  TYPE  FREE     TOTAL     DESCRIPTION",
        "CUDA0  CUDA     gpu   1.0 GiB  2.0 GiB   x",
        "CPU    CPU      cpu   0.0 GiB  64.0 GiB  y (kernels: avx2)",
    ]
