"""Every option, once: the schema behind command line, YAML file, environment and sample file.

`server.options` derives the other three forms from the fields below (their order, section, metavar and
description). A value that is None, or "auto", is decided later by what it depends on.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from engine.config import KV_TYPES, ModelParameters
from engine.errors import ConfigError
from server.option_types import (
    Addresses,
    Positive,
    Words,
    json_object,
    named,
    numbers,
    on_off,
    one_of,
    sampling_defaults,
    split,
    true_false_auto,
    word_or_number,
)

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


def _option(
    default: Any,
    section: str,
    description: str,
    metavar: str | None = None,
    shared: bool = True,
    **bounds: Any,
) -> Any:
    """A field. `shared`: an option of `infer` too, not only of `serve`."""
    extra: dict[str, Any] = {"section": section, "metavar": metavar, "shared": shared}
    return Field(default, description=description, json_schema_extra=extra, **bounds)


class Settings(BaseSettings):
    """The options of `ggserve`, in the order in which --help and the sample file show them."""

    model_config = SettingsConfigDict(
        env_prefix="GGSERVE_",
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        protected_namespaces=(),
        hide_input_in_errors=True,
    )

    # --- model
    model: Annotated[list[str], NoDecode, BeforeValidator(named)] = _option(
        [],
        "model",
        "GGUF file, or NAME=PATH to choose the name under which it is served (else the file's stem); "
        "`serve` takes several; without it the bundled model",
        "[NAME=]PATH",
    )
    context_size: int | None = _option(
        None,
        "model",
        "longest session in tokens; default: what the model was trained for",
        "N",
        ge=2,
        le=1 << 26,
    )
    seed: int | None = _option(
        None,
        "model",
        "seed of requests that bring none; default: a new one for each",
        "N",
        ge=0,
        le=(1 << 64) - 1,
    )

    chat_template: Path | None = _option(
        None,
        "model",
        "file with a Jinja chat template, in place of the one in the model's file",
        "PATH",
        shared=False,
    )
    chat_template_kwargs: Annotated[dict[str, Any], NoDecode, BeforeValidator(json_object)] = _option(
        {},
        "model",
        "further variables for the chat template; a request's own go first",
        "JSON",
        shared=False,
    )
    reasoning: Annotated[Literal["auto", "on", "off"], BeforeValidator(on_off)] = _option(
        "auto",
        "model",
        "whether models reason before they answer, where requests do not say; auto: as templates have it",
        "auto|on|off",
        shared=False,
    )
    reasoning_format: Literal["auto", "none", "deepseek"] = _option(
        "auto",
        "model",
        "auto, deepseek: reasoning is split off as reasoning_content; none: it stays in the content",
        "auto|none|deepseek",
        shared=False,
    )
    reasoning_budget: int = _option(
        -1,
        "model",
        "most tokens of reasoning, where a request does not say; -1: no limit",
        "N",
        shared=False,
        ge=-1,
        le=(1 << 31) - 1,
    )
    default: Annotated[list[str], NoDecode, BeforeValidator(named)] = _option(
        [],
        "model",
        "value of a sampling field for requests that bring none, such as temperature=0.7 or max_tokens=256",
        "NAME=VALUE",
        shared=False,
    )
    alias: Words = _option(
        [],
        "model",
        "another name of the model, or NAME=ALIAS if several are served",
        "[NAME=]ALIAS",
        shared=False,
    )
    tag: Words = _option([], "model", "word that /v1/models shows as one of `tags`", "WORD", shared=False)
    any_model: bool = _option(
        False,
        "model",
        "answer requests for models of unknown names with the first one, instead of with 404",
        shared=False,
    )

    pooling: Literal["auto", "none", "mean", "cls", "last", "rank"] = _option(
        "auto",
        "model",
        "how embeddings are made of the tokens' vectors, unless a request says otherwise; auto: as the "
        "model's file says, else the last token's",
        "auto|none|mean|cls|last|rank",
        shared=False,
    )

    # --- devices
    use_gpu: Annotated[bool | Literal["auto"], BeforeValidator(true_false_auto)] = _option(
        "auto",
        "devices",
        "auto: use one if there is one; true: fail without one; false: CPU only",
        "auto|true|false",
    )
    gpu_layers: Annotated[int | Literal["all", "auto"], word_or_number("all", "auto")] = _option(
        "all",
        "devices",
        "layers on the GPU; all: fail if they do not fit; auto: as many as fit",
        "N|all|auto",
    )
    device: Words = _option(
        [], "devices", "use only these devices, by the names that `ggserve devices` prints", "NAME"
    )
    tensor_split: Annotated[list[Annotated[float, Field(ge=0, allow_inf_nan=False)]], NoDecode] = _option(
        [], "devices", "shares of the layers per device, such as 3,1; default: by free memory", "N,N,…"
    )
    rpc: Addresses = _option(
        [], "devices", "also use the devices of a ggml RPC server; only on networks you trust", "HOST:PORT"
    )
    threads: int | None = _option(
        None, "devices", "CPU threads per model; default: the physical cores we may use", "N", ge=1, le=512
    )
    no_mmap: bool = _option(False, "devices", "read the file into memory instead of mapping it")
    mlock: bool = _option(False, "devices", "keep the weights from being swapped out")
    flash_attn: Annotated[Literal["auto", "on", "off"], BeforeValidator(on_off)] = _option(
        "auto", "devices", "flash attention; auto: where it is faster", "auto|on|off"
    )

    # --- batching
    parallel: int = _option(8, "batching", "sessions decoded together; more wait", "N", ge=1, le=1024)
    kv_cells: Annotated[int | Literal["auto"], word_or_number("auto", least=1)] = _option(
        "auto",
        "batching",
        "tokens in the cache that all sessions share; auto: parallel x context size, bounded by free "
        "memory, at least one whole session",
        "N|auto",
    )
    kv_type: Annotated[str, AfterValidator(one_of(KV_TYPES))] = _option(
        "f16", "batching", f"number type of that cache: {', '.join(KV_TYPES)}", "TYPE"
    )
    batch_size: int = _option(
        512,
        "batching",
        "prompt tokens of a session fed per step (n_batch) unless its request says otherwise",
        "N",
        ge=1,
        le=65536,
    )
    max_batch_tokens: int = _option(
        512,
        "batching",
        "tokens of all sessions computed together (physical batch); also the largest n_batch",
        "N",
        ge=1,
        le=65536,
    )

    # --- server
    host: str = _option(
        "127.0.0.1",
        "server",
        "address to listen on, or several: 127.0.0.1,::1",
        "ADDRESS",
        shared=False,
        min_length=1,
    )
    port: int = _option(
        8080, "server", "port to listen on; 0: any free one", "N", shared=False, ge=0, le=65535
    )
    api_key: Annotated[list[SecretStr], NoDecode, BeforeValidator(split)] = _option(
        [],
        "server",
        "key that clients must send (any of several); a file is safer: others can see command lines",
        "KEY",
    )
    api_key_file: Path | None = _option(
        None, "server", "file with one such key per line (# comments)", "PATH"
    )
    allowed_hosts: Words = _option(
        [],
        "server",
        "Host headers to answer to, * for any; default: localhost names when listening on localhost "
        "(a web page elsewhere could otherwise reach us through DNS), else any",
        "HOST",
        shared=False,
    )
    cors_origins: Words = _option(
        [],
        "server",
        "origins whose web pages may call us, such as https://chat.example",
        "ORIGIN",
        shared=False,
    )
    keep_alive_s: Positive = _option(
        5.0, "server", "seconds between comments on a stream that has nothing to say", "S", shared=False
    )
    drain_s: Annotated[float, Field(ge=0, le=86400, allow_inf_nan=False)] = _option(
        30.0,
        "server",
        "seconds that running streams get to finish after SIGTERM or Ctrl-C",
        "S",
        shared=False,
    )
    send_timeout_s: Positive = _option(
        60.0, "server", "seconds after which a client that does not read is given up", "S", shared=False
    )
    header_timeout_s: Positive = _option(
        10.0, "server", "seconds that a client has to send a request's head", "S", shared=False
    )
    body_timeout_s: Positive = _option(
        60.0, "server", "seconds that a client has to send a request's body", "S", shared=False
    )
    request_timeout_s: Positive | None = _option(
        None,
        "server",
        "seconds for queue, prompt and generation together; a request's timeout_ms may only lower it",
        "S",
        shared=False,
    )
    stall_s: Positive = _option(
        60.0, "server", "seconds without an answer after which an engine counts as stalled", "S", shared=False
    )

    slot_save_path: Path | None = _option(
        None,
        "server",
        "folder for what POST /slots/ID?action=save writes; without it there is no such route",
        "DIR",
        shared=False,
    )
    no_metrics: bool = _option(False, "server", "answer 501 on /metrics", shared=False)
    no_slots: bool = _option(False, "server", "answer 501 on /slots", shared=False)

    # --- limits
    max_queue: int = _option(
        64,
        "limits",
        "requests that wait per model; more are refused with 429",
        "N",
        shared=False,
        ge=0,
        le=1 << 20,
    )
    max_connections: int = _option(
        1024, "limits", "open connections; more are answered with 503", "N", shared=False, ge=1, le=1 << 20
    )
    max_header_bytes: int = _option(
        65536, "limits", "size of a request's head", "N", shared=False, ge=1024, le=1 << 24
    )
    max_body_bytes: int = _option(
        8 << 20, "limits", "size of a request's body", "N", shared=False, ge=1024, le=1 << 32
    )
    max_choices: int = _option(
        16, "limits", "completions (n x prompts) per request", "N", shared=False, ge=1, le=4096
    )
    responses_kept: int = _option(
        256,
        "limits",
        "responses of /v1/responses kept in memory for clients that refer to them; 0: none",
        "N",
        shared=False,
        ge=0,
        le=1 << 20,
    )
    responses_ttl_s: Positive = _option(
        3600.0, "limits", "seconds for which such a response is kept", "S", shared=False
    )
    responses_max_bytes: int = _option(
        64 << 20, "limits", "size of all such responses together", "N", shared=False, ge=0, le=1 << 40
    )

    max_inputs: int = _option(
        2048,
        "limits",
        "inputs per request for embeddings, documents per request for a ranking",
        "N",
        shared=False,
        ge=1,
        le=1 << 20,
    )

    # --- logging
    log_level: Literal["debug", "info", "warning", "error"] = _option(
        "info", "logging", "least severe message shown; debug adds tracebacks", "debug|info|warning|error"
    )
    log_format: Literal["text", "json"] = _option(
        "text", "logging", "a line of text or of JSON each", "text|json"
    )

    @field_validator("tensor_split", mode="before")
    @classmethod
    def _split_numbers(cls, value: Any) -> Any:
        return numbers(value)

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.tensor_split and not any(self.tensor_split):
            raise ValueError("tensor_split: at least one share must be above 0")
        if any(not key.get_secret_value().strip() for key in self.api_key):
            raise ValueError("api_key: a key must not be empty")
        if "*" in self.cors_origins and (self.api_key or self.api_key_file):
            raise ValueError("cors_origins: * cannot be combined with API keys; name the origins")
        if self.model:
            self.models()
        if self.alias:
            self.aliases()
        if not self.hosts():
            raise ValueError("host: names no address")
        self.sampling_defaults()
        return self

    def sampling_defaults(self) -> dict[str, Any]:
        """The values of --default, by the names of `InferenceParameters`."""
        try:
            return sampling_defaults(self.default)
        except ValueError as error:
            raise ValueError(f"default: {error}") from error

    def models(self) -> dict[str, Path]:
        """Served name → file, in the order given; the bundled model if none was. Existence is not checked."""
        if not self.model:
            from server.bundled import bundled_model

            path = bundled_model()
            return {path.stem: path}
        found: dict[str, Path] = {}
        for text in self.model:
            name, equals, rest = text.partition("=")
            # A path may itself contain "=".
            if not equals or not name or name.startswith(("/", ".", "~")) or Path(text).exists():
                name, rest = "", text
            if not rest.strip():
                raise ValueError(f"model: {text!r} has no path; give PATH or NAME=PATH")
            path = Path(rest).expanduser()
            name = name or path.stem
            if len(name) > 200 or not name.isprintable():
                raise ValueError(f"model: the name {name[:200]!r} is too long or has control characters")
            if name in found:
                raise ValueError(f"model: two files would be called {name!r}; use NAME=PATH for one")
            found[name] = path
        return found

    def model_parameters(self) -> ModelParameters:
        """What `engine.load` needs to know."""
        return ModelParameters(
            use_gpu=self.use_gpu,
            gpu_layers=self.gpu_layers,
            devices=tuple(self.device),
            tensor_split=tuple(self.tensor_split),
            context_size=self.context_size,
            kv_cells=None if self.kv_cells == "auto" else self.kv_cells,
            max_batch_tokens=self.max_batch_tokens,
            parallel=self.parallel,
            n_threads=self.threads,
            kv_type=self.kv_type,
            use_mmap=not self.no_mmap,
            mlock=self.mlock,
            flash_attn=self.flash_attn,
            rpc=tuple(self.rpc),
        )

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

    def chat_template_text(self) -> str | None:
        """The template of --chat-template."""
        if self.chat_template is None:
            return None
        path = self.chat_template.expanduser()
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8 text"
            raise ConfigError(f"--chat-template {path}: {reason}") from error

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

    def aliases(self) -> dict[str, str]:
        """Other names of models → served name."""
        served = self.models()
        found: dict[str, str] = {}
        for text in self.alias:
            name, equals, alias = text.partition("=")
            if not equals:
                name, alias = next(iter(served)), text
            if name not in served:
                raise ValueError(f"alias: no model is called {name[:200]!r}; there are {', '.join(served)}")
            if not alias or len(alias) > 200 or not alias.isprintable():
                raise ValueError(f"alias: {alias[:200]!r} is no name")
            if alias in served or found.get(alias, name) != name:
                raise ValueError(f"alias: two models would be called {alias!r}")
            found[alias] = name
        return found


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
