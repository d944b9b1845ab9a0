"""What is deployed: options that other machines understand, and those that have no meaning there."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from engine.errors import ConfigError
from server.config.settings import Settings
from server.replicas.options import REFUSED, Deployment
from support.fakes.engine import STORIES


def test_paths_become_absolute(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(STORIES.parent)
    lora = ["a.gguf", "b=c.gguf=0.5"]
    settings = Settings(model=["stories.gguf"], api_key_file=Path("keys"), parallel=3, lora=lora)
    deployment = Deployment.of(settings)
    assert deployment.settings == {
        "model": [f"stories={STORIES}"],
        "api_key_file": str(STORIES.parent / "keys"),
        "parallel": 3,
        "lora": [f"{STORIES.parent / 'a.gguf'}=1.0", f"{STORIES.parent / 'b=c.gguf'}=0.5"],
    }


def test_deployment_survives_serialization() -> None:
    settings = Settings(model=[str(STORIES)], api_key=[SecretStr("secret")], drain_s=3.0)
    arguments = Deployment.of(settings, replicas=2, autoscale=(1, 4)).model_dump(mode="json")
    arrived = Deployment.model_validate(arguments)
    assert arrived.base_settings.api_key == [SecretStr("secret")]
    assert (arrived.base_settings.drain_s, arrived.autoscale, arrived.max_replicas) == (3.0, (1, 4), 4)


@pytest.mark.parametrize(
    ("options", "threads"),
    [({"cpus": 3.5}, 3), ({"cpus": 0.5}, None), ({"cpus": 4, "gpus": 1}, None), ({}, 1)],
)
def test_replica_has_as_many_threads_as_cpus(options: dict, threads: int | None) -> None:
    deployment = Deployment.of(Settings(model=[str(STORIES)]), **options)
    assert deployment.local_settings().threads == threads
    assert Deployment.of(Settings(model=[str(STORIES)], threads=7), **options).local_settings().threads == 7


def test_local_settings_name_the_models_file() -> None:
    assert Deployment.of(Settings(model=["stories"])).local_settings().models() == {"stories": STORIES}


@pytest.mark.parametrize("name", REFUSED)
def test_options_without_a_meaning_are_refused(name: str) -> None:
    value = {"models_max": 2, "models_memory": 1 << 30, "allow_pull": True}.get(name, Path("/tmp"))
    with pytest.raises(ConfigError, match=f"^{name}: is not available with replicas: "):
        Deployment.of(Settings(model=[str(STORIES)], **{name: value}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"replicas": 0}, "replicas: must be greater than or equal to 1"),
        ({"autoscale": (3, 2)}, "autoscale: must be MIN,MAX with 1 <= MIN <= MAX"),
        ({"autoscale": (0, 2)}, "autoscale: must be MIN,MAX with 1 <= MIN <= MAX"),
        ({"gpus": -1}, "gpus: must be greater than or equal to 0"),
    ],
)
def test_invalid_numbers_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        Deployment.of(Settings(model=[str(STORIES)]), **options)


def test_proxies_have_the_address_and_the_certificate() -> None:
    def options(**settings) -> dict:
        return Deployment.of(Settings(model=[str(STORIES)], **settings)).http_options

    assert options() == {"host": "127.0.0.1", "port": 8080}
    names = {"tls_cert": Path("/cert.pem"), "tls_key": Path("/key.pem")}
    assert options(host="::", port=443, **names) == {
        "host": "::",
        "port": 443,
        "ssl_certfile": "/cert.pem",
        "ssl_keyfile": "/key.pem",
    }
    assert options(tls_cert=Path("/both.pem"))["ssl_keyfile"] == "/both.pem"


def test_proxies_listen_on_one_address() -> None:
    with pytest.raises(ConfigError, match=r"^host: Ray Serve's proxies listen on one address"):
        Deployment.of(Settings(model=[str(STORIES)], host="127.0.0.1,::1"))


def test_a_deployment_serves_one_model() -> None:
    with pytest.raises(ConfigError, match="each deployment serves one model"):
        Deployment.of(Settings(model=[f"a={STORIES}", f"b={STORIES}"]))


def test_an_unknown_argument_is_refused() -> None:
    with pytest.raises(ValidationError, match="replika"):
        Deployment.model_validate({"replika": 3})
