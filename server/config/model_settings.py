"""Options of models, devices and batching: the part of the settings that `infer` has too, and names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from engine.config import KV_TYPES, ModelParameters
from engine.errors import ConfigError
from server.config.option_types import (
    Addresses,
    Words,
    json_object,
    named,
    numbers,
    on_off,
    one_of,
    option,
    sampling_defaults,
    true_false_auto,
    word_or_number,
)

if TYPE_CHECKING:
    from typing import Self


class ModelOptions(BaseSettings):
    """See `server.config.settings.Settings`."""

    model_config = SettingsConfigDict(
        env_prefix="GGSERVE_",
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        protected_namespaces=(),
        hide_input_in_errors=True,
    )

    # --- model
    model: Annotated[list[str], NoDecode, BeforeValidator(named)] = option(
        [],
        "model",
        "GGUF file, or NAME=PATH to choose the name under which it is served (else the file's stem); "
        "`serve` takes several; without it the bundled model",
        "[NAME=]PATH",
    )
    context_size: int | None = option(
        None,
        "model",
        "longest session in tokens; default: what the model was trained for",
        "N",
        ge=2,
        le=1 << 26,
    )
    seed: int | None = option(
        None,
        "model",
        "seed of requests that bring none; default: a new one for each",
        "N",
        ge=0,
        le=(1 << 64) - 1,
    )

    chat_template: Path | None = option(
        None,
        "model",
        "file with a Jinja chat template, in place of the one in the model's file",
        "PATH",
        shared=False,
    )
    chat_template_kwargs: Annotated[dict[str, Any], NoDecode, BeforeValidator(json_object)] = option(
        {},
        "model",
        "further variables for the chat template; a request's own go first",
        "JSON",
        shared=False,
    )
    reasoning: Annotated[Literal["auto", "on", "off"], BeforeValidator(on_off)] = option(
        "auto",
        "model",
        "whether models reason before they answer, where requests do not say; auto: as templates have it",
        "auto|on|off",
        shared=False,
    )
    reasoning_format: Literal["auto", "none", "deepseek"] = option(
        "auto",
        "model",
        "auto, deepseek: reasoning is split off as reasoning_content; none: it stays in the content",
        "auto|none|deepseek",
        shared=False,
    )
    reasoning_budget: int = option(
        -1,
        "model",
        "most tokens of reasoning, where a request does not say; -1: no limit",
        "N",
        shared=False,
        ge=-1,
        le=(1 << 31) - 1,
    )
    default: Annotated[list[str], NoDecode, BeforeValidator(named)] = option(
        [],
        "model",
        "value of a sampling field for requests that bring none, such as temperature=0.7 or max_tokens=256",
        "NAME=VALUE",
        shared=False,
    )
    alias: Words = option(
        [],
        "model",
        "another name of the model, or NAME=ALIAS if several are served",
        "[NAME=]ALIAS",
        shared=False,
    )
    tag: Words = option([], "model", "word that /v1/models shows as one of `tags`", "WORD", shared=False)
    any_model: bool = option(
        False,
        "model",
        "answer requests for models of unknown names with the first one, instead of with 404",
        shared=False,
    )

    pooling: Literal["auto", "none", "mean", "cls", "last", "rank"] = option(
        "auto",
        "model",
        "how embeddings are made of the tokens' vectors, unless a request says otherwise; auto: as the "
        "model's file says, else the last token's",
        "auto|none|mean|cls|last|rank",
        shared=False,
    )

    # --- devices
    use_gpu: Annotated[bool | Literal["auto"], BeforeValidator(true_false_auto)] = option(
        "auto",
        "devices",
        "auto: use one if there is one; true: fail without one; false: CPU only",
        "auto|true|false",
    )
    gpu_layers: Annotated[int | Literal["all", "auto"], word_or_number("all", "auto")] = option(
        "all",
        "devices",
        "layers on the GPU; all: fail if they do not fit; auto: as many as fit",
        "N|all|auto",
    )
    device: Words = option(
        [], "devices", "use only these devices, by the names that `ggserve devices` prints", "NAME"
    )
    tensor_split: Annotated[list[Annotated[float, Field(ge=0, allow_inf_nan=False)]], NoDecode] = option(
        [], "devices", "shares of the layers per device, such as 3,1; default: by free memory", "N,N,…"
    )
    rpc: Addresses = option(
        [], "devices", "also use the devices of a ggml RPC server; only on networks you trust", "HOST:PORT"
    )
    threads: int | None = option(
        None, "devices", "CPU threads per model; default: the physical cores we may use", "N", ge=1, le=512
    )
    no_mmap: bool = option(False, "devices", "read the file into memory instead of mapping it")
    mlock: bool = option(False, "devices", "keep the weights from being swapped out")
    flash_attn: Annotated[Literal["auto", "on", "off"], BeforeValidator(on_off)] = option(
        "auto", "devices", "flash attention; auto: where it is faster", "auto|on|off"
    )

    # --- batching
    parallel: int = option(8, "batching", "sessions decoded together; more wait", "N", ge=1, le=1024)
    kv_cells: Annotated[int | Literal["auto"], word_or_number("auto", least=1)] = option(
        "auto",
        "batching",
        "tokens in the cache that all sessions share; auto: parallel x context size, bounded by free "
        "memory, at least one whole session",
        "N|auto",
    )
    kv_type: Annotated[str, AfterValidator(one_of(KV_TYPES))] = option(
        "f16", "batching", f"number type of that cache: {', '.join(KV_TYPES)}", "TYPE"
    )
    batch_size: int = option(
        512,
        "batching",
        "prompt tokens of a session fed per step (n_batch) unless its request says otherwise",
        "N",
        ge=1,
        le=65536,
    )
    max_batch_tokens: int = option(
        512,
        "batching",
        "tokens of all sessions computed together (physical batch); also the largest n_batch",
        "N",
        ge=1,
        le=65536,
    )

    @field_validator("tensor_split", mode="before")
    @classmethod
    def _split_numbers(cls, value: Any) -> Any:
        return numbers(value)

    @model_validator(mode="after")
    def _models_together(self) -> Self:
        if self.tensor_split and not any(self.tensor_split):
            raise ValueError("tensor_split: at least one share must be above 0")
        if self.model:
            self.models()
        if self.alias:
            self.aliases()
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
            from server.config.bundled import bundled_model

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
