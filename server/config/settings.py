"""Every option once: the schema behind the command line, the YAML file, the environment and the sample file.

`server.config.sources` derives all four from the fields here and in `model_settings`: their order, section,
metavar and description. None and "auto" are resolved later, where what they depend on is known.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import NoDecode

from engine.errors import ConfigError
from server.config.model_settings import ModelSettings
from server.config.option_types import Positive, Words, option, split

SECTIONS = {
    "model": "Models to serve",
    "devices": "Placement of the model",
    "batching": "Concurrency and the KV cache",
    "server": "HTTP server",
    "limits": "Limits for clients",
    "logging": "Logging",
}


class Settings(ModelSettings):
    """The options of `ggserve`, in the order of --help and of the sample file."""

    # --- server
    host: str = option(
        "127.0.0.1",
        "server",
        "address to listen on, or several separated by commas: 127.0.0.1,::1",
        "ADDRESS",
        shared=False,
        min_length=1,
    )
    port: int = option(
        8080, "server", "port to listen on; 0: any free port", "N", shared=False, ge=0, le=65535
    )
    api_key: Annotated[list[SecretStr], NoDecode, BeforeValidator(split)] = option(
        [],
        "server",
        "API key that clients must send; may be repeated. --api-key-file is safer: other users can see "
        "command lines",
        "KEY",
        shared=False,
    )
    api_key_file: Path | None = option(
        None, "server", "file with one API key per line (# starts a comment)", "PATH", shared=False
    )
    allowed_hosts: Words = option(
        [],
        "server",
        "Host header to accept; may be repeated; *: any. Default: the names of localhost when listening on "
        "localhost (protection against DNS rebinding), otherwise any",
        "HOST",
        shared=False,
    )
    cors_origins: Words = option(
        [],
        "server",
        "origin whose web pages may call the API (CORS), such as https://chat.example; may be repeated",
        "ORIGIN",
        shared=False,
    )
    keep_alive_s: Positive = option(
        5.0, "server", "seconds between keep-alive comments on an idle event stream", "S", shared=False
    )
    drain_s: Annotated[float, Field(ge=0, le=86400, allow_inf_nan=False)] = option(
        30.0,
        "server",
        "seconds that running requests get to finish after SIGTERM or Ctrl-C",
        "S",
        shared=False,
    )
    send_timeout_s: Positive = option(
        60.0,
        "server",
        "seconds after which a client that does not read its response is disconnected",
        "S",
        shared=False,
    )
    header_timeout_s: Positive = option(
        10.0, "server", "seconds that a client has to send the headers of a request", "S", shared=False
    )
    body_timeout_s: Positive = option(
        60.0, "server", "seconds that a client has to send the body of a request", "S", shared=False
    )
    request_timeout_s: Positive | None = option(
        None,
        "server",
        "seconds for a whole request: queue, prefill and decode; a request's timeout_ms may only lower it; "
        "default: no limit",
        "S",
        shared=False,
    )
    engine_timeout_s: Positive = option(
        10.0,
        "server",
        "seconds without a heartbeat after which an engine process is killed and replaced, and its requests "
        "resumed (reported as stalled after half of it); a step that shows no progress gets three times that",
        "S",
        shared=False,
        old_name="stall_s",
    )

    slot_save_path: Path | None = option(
        None,
        "server",
        "directory for the files of POST /slots/ID?action=save; without it these routes are disabled",
        "DIR",
        shared=False,
    )
    no_metrics: bool = option(False, "server", "disable /metrics (501)", shared=False)
    no_slots: bool = option(False, "server", "disable /slots (501)", shared=False)

    # --- limits
    max_queue: int = option(
        64,
        "limits",
        "maximum number of waiting requests per model; further ones are refused with 429",
        "N",
        shared=False,
        ge=0,
        le=1 << 20,
    )
    max_connections: int = option(
        1024,
        "limits",
        "maximum number of open connections; further ones are refused with 503",
        "N",
        shared=False,
        ge=1,
        le=1 << 20,
    )
    max_header_bytes: int = option(
        65536, "limits", "maximum size of the headers of a request", "N", shared=False, ge=1024, le=1 << 24
    )
    max_body_bytes: int = option(
        8 << 20, "limits", "maximum size of the body of a request", "N", shared=False, ge=1024, le=1 << 32
    )
    max_choices: int = option(
        16,
        "limits",
        "maximum number of completions per request (n x prompts)",
        "N",
        shared=False,
        ge=1,
        le=4096,
    )
    max_stored_responses: int = option(
        256,
        "limits",
        "maximum number of /v1/responses answers held in memory for later reference; 0: none",
        "N",
        shared=False,
        old_name="responses_kept",
        ge=0,
        le=1 << 20,
    )
    responses_ttl_s: Positive = option(
        3600.0, "limits", "seconds until a stored response expires", "S", shared=False
    )
    responses_max_bytes: int = option(
        64 << 20, "limits", "maximum total size of the stored responses", "N", shared=False, ge=0, le=1 << 40
    )

    max_inputs: int = option(
        2048,
        "limits",
        "maximum number of inputs per embedding request, or documents per rerank request",
        "N",
        shared=False,
        ge=1,
        le=1 << 20,
    )

    # --- logging
    log_level: Literal["debug", "info", "warning", "error"] = option(
        "info",
        "logging",
        "minimum severity of log messages; debug adds tracebacks",
        "debug|info|warning|error",
    )
    log_format: Literal["text", "json"] = option("text", "logging", "format of log lines", "text|json")

    @model_validator(mode="after")
    def _together(self) -> Self:
        if any(not key.get_secret_value().strip() for key in self.api_key):
            raise ValueError("api_key: a key must not be empty")
        if "*" in self.cors_origins and (self.api_key or self.api_key_file):
            raise ValueError("cors_origins: * cannot be combined with API keys; name the origins")
        if not self.hosts():
            raise ValueError("host: must name at least one address")
        return self

    def api_keys(self) -> list[SecretStr]:
        """All keys of --api-key and --api-key-file; empty: none is required. ConfigError: unusable file."""
        keys = list(self.api_key)
        if self.api_key_file is not None:
            path = self.api_key_file.expanduser()
            try:
                lines = path.read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or "not UTF-8 text"
                raise ConfigError(f"--api-key-file {path}: {reason}") from error
            in_file = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
            if not in_file:  # a file emptied by mistake must not open the server to everyone
                raise ConfigError(f"--api-key-file {path}: contains no key")
            keys += [SecretStr(key) for key in in_file]
        return keys

    def slot_folder(self) -> Path | None:
        """The directory of --slot-save-path."""
        return self.slot_save_path and self.slot_save_path.expanduser().absolute()

    def check_slot_folder(self) -> None:
        """ConfigError if --slot-save-path is not a directory: it is never created here."""
        folder = self.slot_folder()
        if folder is not None and not folder.is_dir():
            raise ConfigError(f"--slot-save-path {folder}: is not a directory")

    def hosts(self) -> list[str]:
        """The addresses of --host."""
        return [host.strip() for host in self.host.split(",") if host.strip()]

    @property
    def listens_locally(self) -> bool:
        """Whether every address of --host is a loopback address."""
        return all(map(_is_local, self.hosts()))

    def host_names(self) -> frozenset[str] | None:
        """Accepted Host names, lower case without port; None: any."""
        if "*" in self.allowed_hosts or not (self.allowed_hosts or self.listens_locally):
            return None
        names = [name.lower() for name in self.allowed_hosts]
        if self.listens_locally:
            names += ["localhost", "127.0.0.1", "[::1]", "::1", *map(str.lower, self.hosts())]
        return frozenset(names)


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
