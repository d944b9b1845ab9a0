"""What no test runs is at least well formed: Dockerfiles, compose file, units, workflows, dashboard."""

from __future__ import annotations

import fnmatch
import json
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import yaml

from ggml import build, cuda
from server.config.settings import Settings
from server.metrics.prometheus import Metrics
from support.fakes.engine import FakeEngine

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = Path(sysconfig.get_path("scripts"))
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
DOCKERFILES = ["Dockerfile", "Dockerfile.cuda", "Dockerfile.opencl"]


def check(*command: str) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", DOCKERFILES)
def test_dockerfiles_pass_the_linter(name: str) -> None:
    check(str(SCRIPTS / "hadolint"), "--no-color", name)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_dockerfiles_pin_their_base_and_run_unprivileged(name: str) -> None:
    text = (ROOT / name).read_text()
    bases = re.findall(r"^ARG BASE=(.*)$", text, re.MULTILINE)
    assert all(re.fullmatch(r"python:[\w.-]+@sha256:[0-9a-f]{64}", base) for base in bases)
    assert len(bases) == 1
    assert re.findall(r"^FROM (\S+)", text, re.MULTILINE) == ["${BASE}", "${BASE}"]
    last = text.rpartition("FROM ")[2]
    assert "\nUSER 10001:10001\n" in last
    assert "\nHEALTHCHECK " in last
    assert '"/models"' in last
    assert " HOME=/var/cache/ggserve " in last  # drivers keep compiled kernels there; PoCL needs to
    # Compilers stay in the first stage.
    assert "g++" not in last


@pytest.mark.parametrize("name", DOCKERFILES[1:])
def test_gpu_images_only_add_to_the_cpu_image(name: str) -> None:
    """Dockerfiles cannot share lines, so they are held equal here."""
    for line in (ROOT / "Dockerfile").read_text().splitlines()[2:]:
        # What a line installs or builds may be more.
        start = line.removesuffix(" && rm -rf /var/lib/apt/lists/*").partition(" && GGSERVE_BACKENDS=cpu")[0]
        assert start in (ROOT / name).read_text(), line


def test_cuda_image_has_the_libraries_it_was_linked_with() -> None:
    text = (ROOT / "Dockerfile.cuda").read_text()
    installed = re.findall(r"nvidia-[\w-]+==[\w.]+", text)
    assert len(installed) == 2
    assert set(installed) <= set(cuda.PACKAGES)


def test_compose_file_follows_its_schema() -> None:
    check(
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        "docker-compose.yml",
    )


def test_workflows_follow_their_schema() -> None:
    names = [str(path) for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))]
    assert len(names) == 3
    check(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", *names)


def test_everything_services_name_exists() -> None:
    services = COMPOSE["services"]
    assert {profile for service in services.values() for profile in service["profiles"]} == {
        *("cpu", "cuda", "opencl", "metrics")
    }
    for service in services.values():
        if "build" in service:
            dockerfile = (ROOT / service["build"].get("dockerfile", "Dockerfile")).read_text()
            for name in service["build"].get("args", {}):
                assert f"ARG {name}=" in dockerfile
        else:
            assert re.fullmatch(r"[\w/]+:v?\d+\.\d+\.\d+", service["image"])
        for volume in service["volumes"]:
            source = volume.rpartition("}")[0] or volume.partition(":")[0]
            if source.startswith("./"):
                assert (ROOT / source).exists()
            elif not source.startswith("${"):
                assert source in COMPOSE["volumes"]
        # Nothing is reachable from other machines unless somebody says so.
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_every_variable_of_the_compose_file_is_described_and_every_option_exists() -> None:
    comments, _, services = (ROOT / "docker-compose.yml").read_text().partition("\nname: ")
    used = set(re.findall(r"\$\{(\w+)", services))
    assert used == set(re.findall(r"^#   (\w+)", comments, re.MULTILINE))
    names = {name for service in COMPOSE["services"].values() for name in service.get("environment", {})}
    options = {name.removeprefix("GGSERVE_").lower() for name in names if name.startswith("GGSERVE_")}
    assert options <= set(Settings.model_fields)


def test_services_set_health_check_read_only_and_mounts() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    for service in (service for service in COMPOSE["services"].values() if "build" in service):
        # A health check is dropped where images are built in OCI format.
        check = dict(service["healthcheck"])
        assert f"\n    CMD {json.dumps(check.pop('test')[1:])}\n" in dockerfile
        assert all(f" --{key.replace('_', '-')}={value} " in dockerfile for key, value in check.items())
        # Nothing can be written but what is mounted.
        assert service["read_only"] is True
        assert service["tmpfs"] == ["/tmp"]
        assert service["cap_drop"] == ["ALL"]
        assert "cache:/var/cache/ggserve" in service["volumes"]
        # Draining ends before the container does.
        assert int(service["stop_grace_period"].removesuffix("s")) > Settings.model_fields["drain_s"].default
        for group in service.get("group_add", ()):
            assert re.fullmatch(r"\$\{\w+:-\d+\}", group)  # names would be looked up in the image


def systemd_analyze(folder: Path, *arguments: str, unit: str) -> subprocess.CompletedProcess[str]:
    """Of a copy of the unit that runs a program which exists."""
    copy = folder / "ggserve.service"
    copy.write_text(unit.replace("/opt/ggserve/bin/ggserve", "/bin/true"))
    command = ["systemd-analyze", *arguments, str(copy)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has systemd")
@pytest.mark.parametrize("card", [False, True], ids=["cpu", "card"])
def test_unit_is_valid_and_hardened(card: bool, tmp_path: Path) -> None:
    folder = ROOT / "deploy" / "systemd"
    unit = (folder / "ggserve.service").read_text()
    if card:
        unit += (folder / "gpu.conf").read_text()
    done = systemd_analyze(tmp_path, "verify", "--man=no", unit=unit)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    # From 0 to 10; systemd calls it OK up to 4.
    limit = ["--offline=true", f"--threshold={30 if card else 20}"]
    done = systemd_analyze(tmp_path, "security", *limit, "--no-pager", unit=unit)
    assert done.returncode == 0, done.stdout + done.stderr


def test_unit_waits_for_the_drain_and_signals_only_the_server() -> None:
    unit = (ROOT / "deploy" / "systemd" / "ggserve.service").read_text().splitlines()
    settings = dict(line.split("=", 1) for line in unit if "=" in line and not line.startswith("#"))
    assert int(settings["TimeoutStopSec"]) > Settings.model_fields["drain_s"].default + 5
    assert settings["KillMode"] == "mixed"
    assert settings["OOMPolicy"] == "continue"


def test_backends_of_images_and_wheels_are_known() -> None:
    text = "".join((ROOT / name).read_text() for name in DOCKERFILES)
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "wheels.yml").read_text())
    jobs = workflow["jobs"]
    wheels = [entry["backends"] for entry in jobs["wheels"]["strategy"]["matrix"]["include"]]
    wheels += [step["env"]["GGSERVE_BACKENDS"] for step in jobs["linux"]["steps"] if "env" in step]
    assert len(wheels) == 4
    images = re.findall(r"GGSERVE_BACKENDS=([\w,]+)", text)
    assert len(images) == 3
    for names in (*images, *wheels):
        assert build.backends(names)[0] == "cpu"


def test_only_tags_publish_without_a_password() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "wheels.yml").read_text())
    publish = workflow["jobs"]["publish"]
    assert workflow[True]["push"] == {"tags": ["v*"]}  # YAML reads `on` as true
    assert publish["if"] == "github.event_name == 'push'"
    assert set(publish["needs"]) == set(workflow["jobs"]) - {"publish"}
    assert publish["permissions"] == {"id-token": "write"}
    assert workflow["permissions"] == {"contents": "read"}
    assert "secrets." not in (ROOT / ".github" / "workflows" / "wheels.yml").read_text()


def test_files_the_build_reads_are_in_the_image_context() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    exceptions = [line[1:] for line in lines if line.startswith("!")]
    dropped = [line for line in lines if line and line[0] not in "!#"]
    assert dropped[0] == "*"
    assert all((ROOT / name).exists() for name in exceptions)
    assert {
        "engine",
        "server",
        "ggml",
        "setup.py",
        "pyproject.toml",
        "models",
        "configs/models.yml",
        "README.md",
        "LICENSE",
    } == set(exceptions)
    assert not any(fnmatch.fnmatch(name, pattern) for name in exceptions for pattern in dropped[1:])


def test_dashboard_shows_only_existing_metrics() -> None:
    board = json.loads((ROOT / "deploy" / "grafana" / "dashboards" / "ggserve.json").read_text())
    source = yaml.safe_load(
        (ROOT / "deploy" / "grafana" / "provisioning" / "datasources" / "prometheus.yml").read_text()
    )
    engine = FakeEngine()
    engine.stats.missed_tokens = {"new": 1}
    metrics = Metrics({"m": engine})
    metrics.request("/health", "GET", 200)
    exported = set(re.findall(r"^(ggserve_\w+)", metrics.render().decode(), re.MULTILINE))
    assert len(board["panels"]) == 14
    for panel in board["panels"]:
        assert panel["datasource"]["uid"] == source["datasources"][0]["uid"]
        for target in panel["targets"]:
            names = set(re.findall(r"ggserve_\w+", target["expr"]))
            assert names
            assert names <= exported


def test_prometheus_scrapes_any_of_the_services() -> None:
    config = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["ggserve:8080"]}]
    servers = [service for service in COMPOSE["services"].values() if "build" in service]
    assert len(servers) == 3
    assert all(service["networks"]["default"]["aliases"] == ["ggserve"] for service in servers)
