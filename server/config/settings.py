"""Every option, once: the schema behind command line, YAML file, environment and sample file.

`sources` derives the other three forms from the fields below and in `model_settings` (their
order, section, metavar and description). A value that is None, or "auto", is decided later by what it
depends on.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import NoDecode

from engine.errors import ConfigError
from server.config.model_settings import ModelOptions
from server.config.option_types import Positive, Words, option, split

if TYPE_CHECKING:
    from typing import Self

SECTIONS = {
    "model": "What is served",
    "devices": "Where the model lives",
    "batching": "Sessions and memory for them",
    "server": "HTTP",
    "limits": "Bounds on what a client may ask for",
    "logging": "Logging",
}


class Settings(ModelOptions):
    """The options of `ggserve`, in the order in which --help and the sample file show them."""

    # --- server
    host: str = option(
        "127.0.0.1",
        "server",
        "address to listen on, or several: 127.0.0.1,::1",
        "ADDRESS",
        shared=False,
        min_length=1,
    )
    port: int = option(
        8080, "server", "port to listen on; 0: any free one", "N", shared=False, ge=0, le=65535
    )
    api_key: Annotated[list[SecretStr], NoDecode, BeforeValidator(split)] = option(
        [],
        "server",
        "key that clients must send (any of several); a file is safer: others can see command lines",
        "KEY",
    )
    api_key_file: Path | None = option(None, "server", "file with one such key per line (# comments)", "PATH")
    allowed_hosts: Words = option(
        [],
        "server",
        "Host headers to answer to, * for any; default: localhost names when listening on localhost "
        "(a web page elsewhere could otherwise reach us through DNS), else any",
        "HOST",
        shared=False,
    )
    cors_origins: Words = option(
        [],
        "server",
        "origins whose web pages may call us, such as https://chat.example",
        "ORIGIN",
        shared=False,
    )
    keep_alive_s: Positive = option(
        5.0, "server", "seconds between comments on a stream that has nothing to say", "S", shared=False
    )
    drain_s: Annotated[float, Field(ge=0, le=86400, allow_inf_nan=False)] = option(
        30.0,
        "server",
        "seconds that running streams get to finish after SIGTERM or Ctrl-C",
        "S",
        shared=False,
    )
    send_timeout_s: Positive = option(
        60.0, "server", "seconds after which a client that does not read is given up", "S", shared=False
    )
    header_timeout_s: Positive = option(
        10.0, "server", "seconds that a client has to send a request's head", "S", shared=False
    )
    body_timeout_s: Positive = option(
        60.0, "server", "seconds that a client has to send a request's body", "S", shared=False
    )
    request_timeout_s: Positive | None = option(
        None,
        "server",
        "seconds for queue, prompt and generation together; a request's timeout_ms may only lower it",
        "S",
        shared=False,
    )
    stall_s: Positive = option(
        60.0, "server", "seconds without an answer after which an engine counts as stalled", "S", shared=False
    )

    slot_save_path: Path | None = option(
        None,
        "server",
        "folder for what POST /slots/ID?action=save writes; without it there is no such route",
        "DIR",
        shared=False,
    )
    no_metrics: bool = option(False, "server", "answer 501 on /metrics", shared=False)
    no_slots: bool = option(False, "server", "answer 501 on /slots", shared=False)

    # --- limits
    max_queue: int = option(
        64,
        "limits",
        "requests that wait per model; more are refused with 429",
        "N",
        shared=False,
        ge=0,
        le=1 << 20,
    )
    max_connections: int = option(
        1024, "limits", "open connections; more are answered with 503", "N", shared=False, ge=1, le=1 << 20
    )
    max_header_bytes: int = option(
        65536, "limits", "size of a request's head", "N", shared=False, ge=1024, le=1 << 24
    )
    max_body_bytes: int = option(
        8 << 20, "limits", "size of a request's body", "N", shared=False, ge=1024, le=1 << 32
    )
    max_choices: int = option(
        16, "limits", "completions (n x prompts) per request", "N", shared=False, ge=1, le=4096
    )
    responses_kept: int = option(
        256,
        "limits",
        "responses of /v1/responses kept in memory for clients that refer to them; 0: none",
        "N",
        shared=False,
        ge=0,
        le=1 << 20,
    )
    responses_ttl_s: Positive = option(
        3600.0, "limits", "seconds for which such a response is kept", "S", shared=False
    )
    responses_max_bytes: int = option(
        64 << 20, "limits", "size of all such responses together", "N", shared=False, ge=0, le=1 << 40
    )

    max_inputs: int = option(
        2048,
        "limits",
        "inputs per request for embeddings, documents per request for a ranking",
        "N",
        shared=False,
        ge=1,
        le=1 << 20,
    )

    # --- logging
    log_level: Literal["debug", "info", "warning", "error"] = option(
        "info", "logging", "least severe message shown; debug adds tracebacks", "debug|info|warning|error"
    )
    log_format: Literal["text", "json"] = option(
        "text", "logging", "a line of text or of JSON each", "text|json"
    )

    @model_validator(mode="after")
    def _together(self) -> Self:
        if any(not key.get_secret_value().strip() for key in self.api_key):
            raise ValueError("api_key: a key must not be empty")
        if "*" in self.cors_origins and (self.api_key or self.api_key_file):
            raise ValueError("cors_origins: * cannot be combined with API keys; name the origins")
        if not self.hosts():
            raise ValueError("host: names no address")
        return self

    def api_keys(self) -> list[SecretStr]:
        """All keys, from --api-key and --api-key-file. Empty: anybody may call."""
        keys = list(self.api_key)
        if self.api_key_file is not None:
            path = self.api_key_file.expanduser()
            try:
                lines = path.read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or "not UTF-8 text"
                raise ConfigError(f"--api-key-file {path}: {reason}") from error
            found = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
            if not found:  # a file emptied by mistake must not open the server to everyone
                raise ConfigError(f"--api-key-file {path}: holds no key")
            keys += [SecretStr(key) for key in found]
        return keys

    def slot_folder(self) -> Path | None:
        """The folder of --slot-save-path."""
        return self.slot_save_path and self.slot_save_path.expanduser().absolute()

    def check_slot_folder(self) -> None:
        """ConfigError if there is no such folder: it is not ours to make."""
        folder = self.slot_folder()
        if folder is not None and not folder.is_dir():
            raise ConfigError(f"--slot-save-path {folder}: is no folder")

    def hosts(self) -> list[str]:
        """The addresses of --host."""
        return [host.strip() for host in self.host.split(",") if host.strip()]

    @property
    def listens_locally(self) -> bool:
        """Whether only programs on this machine can connect."""
        return all(map(_is_local, self.hosts()))

    def host_names(self) -> frozenset[str] | None:
        """Host names (without port, lower case) to answer to; None: any."""
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
