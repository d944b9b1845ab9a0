"""What is deployed: the server's options, and the number of replicas of the model."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from engine.errors import ConfigError
from server.config.settings import Settings
from server.models.resolver import resolve

# Options of `ggserve serve` that have no meaning where several machines serve one model, and why.
REFUSED = {
    "models_dir": "each deployment serves one model",
    "models_max": "each deployment serves one model",
    "models_memory": "each deployment serves one model",
    "slot_save_path": "a slot belongs to one engine",
    "allow_pull": "models are downloaded when a replica starts",
}


class Deployment(BaseModel):
    """The arguments of `server.replicas.application:build`, which a Serve config file can set too.

    settings: options of `ggserve serve`, by their names in its YAML file. autoscale: the minimum and maximum
    number of replicas, in place of `replicas`. cpus, gpus: reserved by each replica on its node.
    stream_interval_ms: time between two frames of a stream from a replica, each with the tokens computed
    meanwhile.
    """

    model_config = ConfigDict(extra="forbid")

    settings: dict[str, Any] = {}
    replicas: Annotated[int, Field(ge=1, le=10_000)] = 1
    autoscale: tuple[int, int] | None = None
    ingresses: Annotated[int, Field(ge=1, le=1000)] = 1
    cpus: Annotated[float, Field(ge=0, le=4096, allow_inf_nan=False)] = 1
    gpus: Annotated[float, Field(ge=0, le=64, allow_inf_nan=False)] = 0
    stream_interval_ms: Annotated[float, Field(ge=0, le=10_000, allow_inf_nan=False)] = 0

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.autoscale is not None and not 1 <= self.autoscale[0] <= self.autoscale[1] <= 10_000:
            raise ValueError("autoscale: must be MIN,MAX with 1 <= MIN <= MAX")
        settings = self.base_settings
        for name, reason in REFUSED.items():
            if name in settings.model_fields_set:
                raise ValueError(f"{name}: is not available with replicas: {reason}")
        if len(settings.hosts()) != 1:
            raise ValueError("host: Ray Serve's proxies listen on one address")
        if len(settings.sources()) != 1:
            raise ValueError("model: each deployment serves one model")
        return self

    @classmethod
    def of(cls, settings: Settings, **options: Any) -> Self:
        """The deployment of these settings, with absolute paths.

        Raises ConfigError if they do not fit together.
        """
        values = settings.model_dump(mode="json", exclude_unset=True)
        values["model"] = [f"{name}={_absolute(source)}" for name, source in settings.sources().items()]
        for name in settings.model_fields_set:
            if isinstance(value := getattr(settings, name), Path):
                values[name] = str(value.expanduser().absolute())
        if settings.lora:
            values["lora"] = [
                f"{Path(file.path).absolute()}={file.scale}" for file in settings.lora_adapters()
            ]
        keys: list[SecretStr] = settings.api_key
        if keys:
            values["api_key"] = [key.get_secret_value() for key in keys]
        try:
            return cls(settings=values, **options)
        except ValidationError as error:
            message = error.errors(include_url=False, include_context=False, include_input=False)[0]
            where = "".join(f"{part}: " for part in message["loc"][:1])
            raise ConfigError(
                where + message["msg"].removeprefix("Value error, ").replace("Input should", "must")
            ) from error

    @cached_property
    def base_settings(self) -> Settings:
        return Settings(**self.settings)

    def local_settings(self) -> Settings:
        """The settings with the model as a file on this machine, downloaded first if necessary. Raises
        DownloadError.
        """
        settings = self.base_settings
        settings = settings.with_files({name: resolve(text) for name, text in settings.sources().items()})
        if settings.threads is None and self.cpus >= 1 and not self.gpus:
            settings = settings.model_copy(update={"threads": int(self.cpus)})
        return settings

    @property
    def http_options(self) -> dict[str, Any]:
        """The HTTP options of Ray Serve's proxies."""
        settings = self.base_settings
        options: dict[str, Any] = {"host": settings.host, "port": settings.port}
        if settings.tls_cert is not None:
            options["ssl_certfile"] = str(settings.tls_cert)
            options["ssl_keyfile"] = str(settings.tls_key or settings.tls_cert)
        return options

    @property
    def max_replicas(self) -> int:
        return self.replicas if self.autoscale is None else self.autoscale[1]


def _absolute(source: str) -> str:
    path = Path(source).expanduser()
    return str(path.absolute()) if path.exists() else source
