"""`ggserve ray`: the config file, and what is refused, without a cluster and without Ray."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import yaml

from server.cli import ray
from server.cli.main import main
from server.replicas.options import Deployment
from support.fakes.engine import STORIES
from support.fakes.http_app import make_certificate


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "server.replicas.application", raising=False)


def config(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["ray", "config", str(STORIES), *arguments]) == 0
    return yaml.safe_load(capsys.readouterr().out)


def test_config_is_written_without_ray_installed(capsys, without_ray) -> None:
    options = ("--replicas", "3", "--parallel", "16", "--host", "0.0.0.0", "--port", "9000")
    printed = config(capsys, *options)
    assert printed["http_options"] == {"host": "0.0.0.0", "port": 9000}
    (application,) = printed["applications"]
    assert (application["name"], application["route_prefix"]) == ("ggserve", "/")
    assert application["import_path"] == "server.replicas.application:build"
    arguments = Deployment.model_validate(application["args"])
    assert (arguments.replicas, arguments.base_settings.parallel) == (3, 16)
    assert arguments.settings["model"] == [f"stories={STORIES}"]


def test_config_has_numbers_and_resources_of_replicas(capsys) -> None:
    options = (
        "--autoscale",
        "1,8",
        "--replica-cpus",
        "4",
        "--replica-gpus",
        "0.5",
        "--ingresses",
        "2",
        "--stream-interval-ms",
        "50",
    )
    (application,) = config(capsys, *options)["applications"]
    arguments = Deployment.model_validate(application["args"])
    assert (arguments.autoscale, arguments.cpus, arguments.gpus, arguments.ingresses) == ((1, 8), 4, 0.5, 2)
    assert arguments.stream_interval_ms == 50


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("deploy", "stories"), "ggserve ray deploy needs Ray: pip install 'ggserve[ray]'"),
        (("config", "stories", "--api-key", "secret"), "--api-key would be readable in the file"),
        (("config", "stories", "--replicas", "0"), "replicas: must be greater than or equal to 1"),
        (("config", "stories", "-m", "x.gguf"), "model: each deployment serves one model"),
    ],
)
def test_mistakes_are_reported_in_one_line(
    capsys, without_ray, arguments: tuple[str, ...], message: str
) -> None:
    assert main(["ray", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ggserve: {message}")


@pytest.mark.parametrize(
    ("arguments", "warns"),
    [((), False), (("--host", "0.0.0.0"), True), (("--host", "0.0.0.0", "--api-key-file", "keys"), False)],
)
def test_public_address_without_keys_gets_a_warning(capsys, arguments: tuple[str, ...], warns: bool) -> None:
    assert main(["ray", "config", str(STORIES), *arguments]) == 0
    assert ("anyone who can reach 0.0.0.0 can use this server" in capsys.readouterr().err) is warns


def test_bad_certificate_is_reported_before_ray_is_imported(capsys, tmp_path, without_ray) -> None:
    cert, key = make_certificate(tmp_path)
    files = ("--tls-cert", str(cert), "--tls-key")
    for last, message in [
        (tmp_path / "absent", f"--tls-key {tmp_path / 'absent'}: No such file or directory"),
        (key, "ggserve ray deploy needs Ray: pip install 'ggserve[ray]'"),
    ]:
        assert main(["ray", "deploy", str(STORIES), *files, str(last)]) == 2
        assert capsys.readouterr().err == f"ggserve: {message}\n"


@pytest.mark.parametrize("text", ["3", "1;2", "a,b", "-1,2", "1,"])
def test_invalid_autoscale_range_is_refused(capsys, text: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["ray", "config", f"--autoscale={text}"])
    assert caught.value.code == 2
    assert "is not MIN,MAX" in capsys.readouterr().err


def test_import_error_inside_ray_is_not_reported_as_a_missing_extra(monkeypatch, without_ray) -> None:
    monkeypatch.setitem(sys.modules, "server.replicas.application", None)
    with pytest.raises(ImportError, match=r"server\.replicas\.application"):
        ray.run(["deploy", "stories"])
