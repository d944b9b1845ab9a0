"""The manifests of deploy/kubernetes: Kubernetes' schemas, its restricted standard, and our options."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from server.config.settings import Settings
from server.metrics.prometheus import Metrics
from support.fakes.engine import FakeEngine

FOLDER = Path(__file__).resolve().parents[1] / "deploy" / "kubernetes"
KUSTOMIZATION = yaml.safe_load((FOLDER / "cpu" / "kustomization.yaml").read_text())
MANIFESTS = {name: yaml.safe_load((FOLDER / "cpu" / name).read_text()) for name in KUSTOMIZATION["resources"]}
OBJECTS: dict[str, Any] = {manifest["kind"]: manifest for manifest in MANIFESTS.values()}
COPY = yaml.safe_load((FOLDER / "copy.yaml").read_text())
POD = OBJECTS["Deployment"]["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
OPTIONS = dict(line.split("=", 1) for line in KUSTOMIZATION["configMapGenerator"][0]["literals"])


def seconds() -> tuple[int, float]:
    """The pause before SIGTERM, and the drain."""
    return int(CONTAINER["lifecycle"]["preStop"]["exec"]["command"][1]), float(OPTIONS["GGSERVE_DRAIN_S"])


def test_every_manifest_is_part_of_the_kustomization() -> None:
    files = {path.name for path in (FOLDER / "cpu").glob("*.yaml")} - {"kustomization.yaml"}
    assert files == set(MANIFESTS)


@pytest.mark.parametrize("version", ["1.27", "1.37"])  # the oldest that has all of it; the newest known
@pytest.mark.parametrize("manifest", [*MANIFESTS.values(), COPY], ids=lambda manifest: manifest["kind"])
def test_manifests_follow_the_schema_of_kubernetes(manifest: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("pod", [POD, COPY["spec"]], ids=["server", "copy"])
def test_pods_meet_the_restricted_standard(pod: dict[str, Any]) -> None:
    context, (container,) = pod["securityContext"], pod["containers"]
    own = container["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own["allowPrivilegeEscalation"] is False
    assert own["capabilities"] == {"drop": ["ALL"]}
    kinds = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
    assert kinds <= {"configMap", "emptyDir", "persistentVolumeClaim", "secret"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert pod["automountServiceAccountToken"] is False


def test_pods_run_as_the_user_of_the_image_and_mount_what_it_writes_to() -> None:
    dockerfile = (FOLDER.parents[1] / "Dockerfile").read_text()
    context = POD["securityContext"]
    assert f"\nUSER {context['runAsUser']}:{context['runAsGroup']}\n" in dockerfile
    mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in CONTAINER["volumeMounts"]}
    (volumes,) = re.findall(r"^VOLUME \[(.*)\]$", dockerfile, re.MULTILINE)
    assert set(re.findall(r'"(.*?)"', volumes)) | {"/tmp"} <= set(mounts)
    assert CONTAINER["securityContext"]["readOnlyRootFilesystem"] is True
    assert mounts["/models"] is True
    assert mounts["/var/cache/ggserve"] is False
    folders = {str(Path(OPTIONS["GGSERVE_API_KEY_FILE"]).parent)}
    assert folders <= set(mounts)
    assert {mount["name"] for mount in CONTAINER["volumeMounts"]} == {v["name"] for v in POD["volumes"]}


def test_service_links_are_off_so_that_no_service_sets_an_option() -> None:
    """Kubernetes would set GGSERVE_PORT=tcp://… for a Service called ggserve."""
    assert POD["enableServiceLinks"] is False


def test_the_grace_period_covers_the_drain() -> None:
    pause, drain = seconds()
    assert POD["terminationGracePeriodSeconds"] >= pause + drain + 5


def test_probes_ask_for_health_and_leave_recovery_to_the_server() -> None:
    port = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}["http"]
    assert f"GGSERVE_PORT={port}" in (FOLDER.parents[1] / "Dockerfile").read_text()
    probes = [CONTAINER[f"{kind}Probe"] for kind in ("startup", "readiness", "liveness")]
    assert all(probe["httpGet"] == {"path": "/health", "port": "http"} for probe in probes)
    assert all(probe["timeoutSeconds"] < probe["periodSeconds"] for probe in probes)
    start, ready, live = (probe["periodSeconds"] * probe["failureThreshold"] for probe in probes)
    assert ready <= 10
    assert 600 <= live <= start


def test_config_map_names_only_options_of_the_server() -> None:
    fields = {name.removeprefix("GGSERVE_").lower() for name in OPTIONS}
    assert fields <= set(Settings.model_fields)
    patch = (FOLDER / "cuda" / "kustomization.yaml").read_text()
    assert {name.lower() for name in re.findall(r"GGSERVE_(\w+)", patch)} <= set(Settings.model_fields)


def test_service_autoscaler_and_budget_select_the_same_pods() -> None:
    labels = OBJECTS["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert OBJECTS["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert OBJECTS["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert OBJECTS["Service"]["spec"]["selector"] == labels
    target = OBJECTS["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    deployment = OBJECTS["Deployment"]
    assert target == {**{key: deployment[key] for key in ("apiVersion", "kind")}, "name": "ggserve"}
    assert "replicas" not in deployment["spec"]
    for pod in (POD, COPY["spec"]):
        claim = next(v["persistentVolumeClaim"] for v in pod["volumes"] if v["name"] == "models")
        assert claim["claimName"] == OBJECTS["PersistentVolumeClaim"]["metadata"]["name"]
    # A budget that allows none of two pods to go would block every upgrade of a node.
    assert OBJECTS["HorizontalPodAutoscaler"]["spec"]["minReplicas"] > 1


def test_autoscaler_follows_a_metric_the_server_exports() -> None:
    (metric,) = OBJECTS["HorizontalPodAutoscaler"]["spec"]["metrics"]
    name = metric["pods"]["metric"]["name"]
    text = Metrics({"m": FakeEngine()}).render().decode()
    assert re.search(rf"^{name}\{{", text, re.MULTILINE)
    rules = yaml.safe_load((FOLDER / "prometheus-adapter.yaml").read_text())
    (rule,) = rules["rules"]["custom"]
    assert rule["seriesQuery"].startswith(name + "{")
    assert set(rule["resources"]["overrides"]) == {"namespace", "pod"}
    # Few enough to wait that a new pod helps before the queue is full.
    limit = int(metric["pods"]["target"]["averageValue"])
    assert limit < int(OPTIONS["GGSERVE_MAX_QUEUE"])


def test_gpu_image_replaces_the_cpu_image() -> None:
    (image,) = KUSTOMIZATION["images"]
    overlay = yaml.safe_load((FOLDER / "cuda" / "kustomization.yaml").read_text())
    assert image["name"] == CONTAINER["image"]
    assert COPY["spec"]["containers"][0]["image"] == f"{image['newName']}:{image['newTag']}"
    assert overlay["images"] == [{"name": image["newName"], "newTag": "cuda"}]
    (patch,) = overlay["patches"]
    (container,) = yaml.safe_load(patch["patch"])["spec"]["template"]["spec"]["containers"]
    assert container["name"] == CONTAINER["name"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "1"}
