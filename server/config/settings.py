"""Every option, declared once: the schema of the command line, the YAML file, the environment and the sample
file.

`server.config.sources` derives all four from the fields here and in `model_settings`: their order, section,
metavar and description. None and "auto" are resolved later, where the values that they depend on are known.
"""

from __future__ import annotations

import ipaddress
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, model_validator

from engine.errors import ConfigError
from server.config.model_settings import ModelSettings
from server.config.option_types import Positive, Words, option, split

SECTIONS = {
    "model": "Models and defaults of requests",
    "devices": "Placement of the model",
    "batching": "Concurrency and the KV cache",
    "server": "HTTP server",
    "limits": "Limits for clients",
    "logging": "Logging",
}
_server = partial(option, section="server", shared=False)
_models = partial(option, section="model", shared=False)
MOST_CONNECTIONS = 16384  # unless the administrator says otherwise
LOCAL_NAMES = frozenset(("localhost", "127.0.0.1", "[::1]", "::1"))
_limit = partial(option, metavar="N", section="limits", shared=False)
_logging = partial(option, section="logging")


class Settings(ModelSettings):
    """The options of `ggserve`, in the order of --help and of the sample file."""

    # --- models
    models_max: int | None = _models(
        None,
        "maximum number of models loaded at the same time; the least recently used one that no request uses "
        "makes room; 0: no limit. Default: 4 with --models-dir, otherwise all of --model",
        "N",
        ge=0,
        le=1024,
    )
    no_models_autoload: bool = _models(
        False, "a request for a model that is not loaded is refused instead of loading it"
    )
    sleep_idle_seconds: Annotated[float, Field(ge=-1, le=86400 * 365, allow_inf_nan=False)] = _models(
        -1.0,
        "seconds without a request after which a model is unloaded, until the next request loads it again; "
        "-1: never",
        "S",
    )

    # --- server
    host: str = _server(
        "127.0.0.1",
        "address to listen on, or several separated by commas: 127.0.0.1,::1",
        "ADDRESS",
        min_length=1,
    )
    port: int = _server(8080, "port to listen on; 0: any free port", "N", ge=0, le=65535)
    api_key: Annotated[list[SecretStr], BeforeValidator(split)] = _server(
        [],
        "API key that clients must send; may be repeated. --api-key-file is safer: other users can see "
        "command lines",
        "KEY",
    )
    api_key_file: Path | None = _server(
        None,
        "file with one API key or its hash per line, and the role and limits of its client (see `ggserve "
        "keys`); read again when it changes",
        "PATH",
    )
    tls_cert: Path | None = _server(
        None,
        "PEM file with the server's certificate and its intermediate certificates, for HTTPS; read again on "
        "SIGHUP",
        "PATH",
    )
    tls_key: Path | None = _server(
        None,
        "PEM file with the private key of --tls-cert, whose password, if it has one, is in "
        "GGSERVE_TLS_KEY_PASSWORD; default: the key is in the file of --tls-cert",
        "PATH",
    )
    allowed_hosts: Words = _server(
        [],
        "Host header to accept besides the names of localhost; may be repeated; *: any. Default: none when "
        "listening on localhost (protection against DNS rebinding), otherwise any host",
        "HOST",
    )
    cors_origins: Words = _server(
        [],
        "origin whose web pages may call the API (CORS), such as https://chat.example; may be repeated",
        "ORIGIN",
    )
    keep_alive_s: Positive = _server(5.0, "seconds between keep-alive comments on an idle event stream", "S")
    drain_s: Annotated[float, Field(ge=0, le=86400, allow_inf_nan=False)] = _server(
        30.0, "seconds that running requests get to finish after SIGTERM or Ctrl-C", "S"
    )
    send_timeout_s: Positive = _server(
        60.0, "seconds after which a client that does not read its response is disconnected", "S"
    )
    header_timeout_s: Positive = _server(
        10.0, "seconds within which a client must send the headers of a request", "S"
    )
    body_timeout_s: Positive = _server(
        60.0, "seconds within which a client must send the body of a request", "S"
    )
    request_timeout_s: Positive | None = _server(
        None,
        "seconds for a whole request: queue, prefill and decode; a request's timeout_ms may only lower it; "
        "default: no limit",
        "S",
    )
    engine_timeout_s: Positive = _server(
        10.0,
        "seconds without a heartbeat after which an engine process is killed and replaced, and its requests "
        "resumed (reported as stalled after half of it); a step gets at least three times that",
        "S",
        old_name="stall_s",
    )

    slot_save_path: Path | None = _server(
        None,
        "directory for the files of POST /slots/ID?action=save; without it these routes are disabled",
        "DIR",
    )
    otlp_traces_endpoint: str | None = _server(
        None,
        "URL to send OpenTelemetry traces to, by OTLP over HTTP, such as http://localhost:4318/v1/traces "
        "(needs the extra otel); default: no traces",
        "URL",
    )
    no_metrics: bool = _server(False, "disable /metrics (501)")
    no_slots: bool = _server(False, "disable /slots (501)")
    allow_pull: bool = _server(
        False, "let clients download models from the Hub and delete downloaded ones (/api/pull, /api/delete)"
    )

    # --- limits
    max_queue: int = _limit(
        64,
        "maximum number of waiting requests per model; further ones are refused with 429",
        ge=0,
        le=1 << 20,
    )
    cache_isolation: Literal["none", "key"] = option(
        "none",
        "key: each client reuses only its own prefixes in the KV cache, so that it cannot infer from timing "
        "what others ask; none: all clients share prefixes",
        "none|key",
        section="limits",
        shared=False,
    )
    max_connections: int | None = _limit(
        None,
        "maximum number of open connections; beyond it, the connection that has been idle longest is closed, "
        "or if none is idle, the new one is refused with 503; default: as many as the limit on open files "
        f"allows (the server raises it), at most {MOST_CONNECTIONS}",
        ge=1,
        le=1 << 20,
    )
    max_header_bytes: int = _limit(65536, "maximum size of the headers of a request", ge=1024, le=1 << 24)
    max_body_bytes: int = _limit(8 << 20, "maximum size of the body of a request", ge=1024, le=1 << 32)
    max_choices: int = _limit(16, "maximum number of completions per request (n x prompts)", ge=1, le=4096)
    max_stored_responses: int = _limit(
        256,
        "maximum number of /v1/responses answers held in memory for later reference; 0: none",
        old_name="responses_kept",
        ge=0,
        le=1 << 20,
    )
    responses_ttl_s: Positive = _limit(3600.0, "seconds until a stored response expires", metavar="S")
    responses_max_bytes: int = _limit(
        64 << 20, "maximum total size of the stored responses", ge=0, le=1 << 40
    )

    max_inputs: int = _limit(
        2048,
        "maximum number of inputs per embedding request, or documents per rerank request",
        ge=1,
        le=1 << 20,
    )

    # --- logging
    log_level: Literal["debug", "info", "warning", "error"] = _logging(
        "info", "minimum severity of log messages; debug adds tracebacks", "debug|info|warning|error"
    )
    log_format: Literal["text", "json"] = _logging("text", "format of log lines", "text|json")

    @model_validator(mode="after")
    def _together(self) -> Self:
        if any(not key.get_secret_value().strip() for key in self.api_key):
            raise ValueError("api_key: a key must not be empty")
        if "*" in self.cors_origins and (self.api_key or self.api_key_file):
            raise ValueError("cors_origins: * cannot be combined with API keys; name the origins")
        if self.tls_key is not None and self.tls_cert is None:
            raise ValueError("tls_key: needs tls_cert, the certificate that it belongs to")
        if not self.hosts():
            raise ValueError("host: must name at least one address")
        return self

    def slot_folder(self) -> Path | None:
        """The directory of --slot-save-path."""
        return self.slot_save_path and self.slot_save_path.expanduser().absolute()

    def check_slot_folder(self) -> None:
        """Raises ConfigError if --slot-save-path is not a directory; it is never created here."""
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

    def chat_template_text(self) -> str | None:
        """The text of the --chat-template file. Raises ConfigError if it cannot be read."""
        if self.chat_template is None:
            return None
        path = self.chat_template.expanduser()
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8 text"
            raise ConfigError(f"--chat-template {path}: {reason}") from error

    def host_names(self) -> frozenset[str] | None:
        """The accepted Host names, in lower case and without port; None: any.

        Localhost's names are always accepted, for health checks: no page of another site can send them.
        """
        if "*" in self.allowed_hosts or not (self.allowed_hosts or self.listens_locally):
            return None
        names = [name.lower() for name in self.allowed_hosts]
        if self.listens_locally:
            names += map(str.lower, self.hosts())
        return frozenset(names) | LOCAL_NAMES


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
