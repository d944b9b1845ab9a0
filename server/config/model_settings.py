"""Options of models, devices and batching, and values derived from them. `infer` has most of them too."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, field_validator, model_validator

from engine.config import DRAFT_MODEL, KV_TYPES, MAX_DRAFT, LoraAdapter, ModelParameters
from engine.gguf.split import model_name
from server.config.option_types import (
    Addresses,
    Words,
    json_object,
    lora_adapter,
    named,
    nbytes,
    numbers,
    on_off,
    one_of,
    option,
    sampling_defaults,
    tensor_override,
    true_false_auto,
    word_or_number,
)
from server.models import reference

_model = partial(option, section="model")
_device = partial(option, section="devices")
_batching = partial(option, section="batching")


class ModelSettings(BaseModel):
    """See `server.config.settings.Settings`."""

    model_config = {
        "extra": "forbid",
        "validate_default": True,
        "frozen": True,
        "protected_namespaces": (),
        "hide_input_in_errors": True,
    }

    # --- model
    model: Annotated[list[str], BeforeValidator(named)] = _model(
        [],
        "GGUF file to load, or hf:OWNER/REPO[:QUANT], ollama:NAME, lmstudio:NAME or a short name, see "
        "`ggserve list`; NAME=PATH to serve it as NAME; `serve` accepts several; default: "
        "SmolLM2-135M-Instruct, downloaded once (98 MB)",
        "[NAME=]PATH",
    )
    models_dir: Path | None = _model(
        None,
        "directory of GGUF files to serve, including its subdirectories: each model is loaded when a request "
        "names it; added and removed files are detected while the server runs",
        "DIR",
        shared=False,
    )
    models_memory: Annotated[int | None, BeforeValidator(nbytes)] = _model(
        None,
        "maximum memory of all models together, on all devices, such as 24G; default: the free memory",
        "BYTES",
        shared=False,
        ge=0,
        le=1 << 62,
    )
    context_size: int | None = _model(
        None,
        "maximum context length of a request, in tokens; default: the model's training context, which an "
        "embedding model with learned positions cannot exceed",
        "N",
        ge=2,
        le=1 << 26,
    )
    lora: Annotated[list[str], BeforeValidator(named)] = _model(
        [],
        "LoRA adapter to load with the model: a GGUF file (see `ggserve convert`), and its scale (default "
        "1); may be repeated; all are used, unless a request chooses some by number (`lora`)",
        "FILE[=SCALE]",
    )
    draft_model: Path | None = _model(
        None,
        "GGUF file of a smaller model with the same vocabulary, which drafts tokens that the model verifies "
        "(speculative decoding, see --spec-type)",
        "FILE",
        shared=False,
    )
    seed: int | None = _model(
        None,
        "random seed for requests that set none; default: a new seed for each request",
        "N",
        ge=0,
        le=(1 << 64) - 1,
    )

    chat_template: Path | None = _model(
        None, "file with a Jinja chat template that replaces the one in the model file", "PATH", shared=False
    )
    chat_template_kwargs: Annotated[dict[str, Any], BeforeValidator(json_object)] = _model(
        {}, "extra variables for the chat template; those of a request take precedence", "JSON", shared=False
    )
    reasoning: Annotated[Literal["auto", "on", "off"], BeforeValidator(on_off)] = _model(
        "auto",
        "whether the model reasons before it answers, unless a request sets it; auto: the template's default",
        "auto|on|off",
        shared=False,
    )
    reasoning_format: Literal["auto", "none", "deepseek"] = _model(
        "auto",
        "auto, deepseek: return reasoning in reasoning_content; none: leave it in content",
        "auto|none|deepseek",
        shared=False,
    )
    reasoning_budget: int = _model(
        -1,
        "maximum tokens of reasoning, for requests that do not set it; -1: no limit",
        "N",
        shared=False,
        ge=-1,
        le=(1 << 31) - 1,
    )
    default: Annotated[list[str], BeforeValidator(named)] = _model(
        [],
        "default for a sampling field that a request leaves out, such as temperature=0.7 or max_tokens=256",
        "NAME=VALUE",
        shared=False,
    )
    alias: Words = _model(
        [],
        "additional name for the model; NAME=ALIAS when several models are served",
        "[NAME=]ALIAS",
        shared=False,
    )
    tag: Words = _model([], "tag that /v1/models lists under `tags`", "WORD", shared=False)
    any_model: bool = _model(
        False, "answer requests for an unknown model with the first model instead of 404", shared=False
    )

    pooling: Literal["auto", "none", "mean", "cls", "last", "rank"] = _model(
        "auto",
        "how token vectors are pooled into an embedding, unless the request sets it; auto: as the model file "
        "specifies, otherwise the last token",
        "auto|none|mean|cls|last|rank",
        shared=False,
    )

    # --- devices
    use_gpu: Annotated[bool | Literal["auto"], BeforeValidator(true_false_auto)] = _device(
        "auto",
        "auto: use a GPU if one is available; true: fail without one; false: CPU only",
        "auto|true|false",
    )
    gpu_layers: Annotated[int | Literal["all", "auto"], word_or_number("all", "auto")] = _device(
        "all",
        "layers to offload to the GPU; all: fail if they do not fit; auto: as many as fit",
        "N|all|auto",
    )
    draft_gpu_layers: Annotated[int | Literal["all", "auto"], word_or_number("all", "auto")] = _device(
        "all", "layers of the draft model to offload to the GPU, as --gpu-layers", "N|all|auto", shared=False
    )
    cpu_moe: bool = _device(False, "leave the experts of all layers on the CPU, wherever the layers are")
    n_cpu_moe: int | None = _device(
        None,
        "leave the experts of the first N layers on the CPU; default: as few as possible if the number of "
        "offloaded layers is automatic, otherwise none",
        "N",
        ge=0,
        le=10_000,
    )
    override_tensor: Words = _device(
        [],
        "device for tensors whose name the regular expression PATTERN matches in part; may be repeated, the "
        "first match counts",
        "PATTERN=DEVICE",
    )
    device: Words = _device(
        [], "use only this device, by its name in `ggserve devices`; may be repeated", "NAME"
    )
    tensor_split: list[Annotated[float, Field(ge=0, allow_inf_nan=False)]] = _device(
        [], "proportion of the layers on each device, such as 3,1; default: by free memory", "N,N,…"
    )
    rpc: Addresses = _device(
        [],
        "also use the devices of this RPC server (see `ggserve rpc-worker`); only on trusted networks",
        "HOST:PORT",
    )
    threads: int | None = _device(
        None, "CPU threads per model; default: the physical cores available to the process", "N", ge=1, le=512
    )
    no_mmap: bool = _device(False, "read the model file into memory instead of mapping it")
    mlock: bool = _device(False, "lock the weights in memory so that they are never swapped out")
    flash_attn: Annotated[Literal["auto", "on", "off"], BeforeValidator(on_off)] = _device(
        "auto", "use flash attention; auto: where it is faster", "auto|on|off"
    )

    # --- batching
    parallel: int = _batching(
        8, "requests processed at the same time; others wait in the queue", "N", ge=1, le=1024
    )
    kv_cells: Annotated[int | Literal["auto"], word_or_number("auto", least=1)] = _batching(
        "auto",
        "size in tokens of the KV cache that all requests share; auto: parallel x context size, limited by "
        "free memory, at least one full context",
        "N|auto",
    )
    kv_type: Annotated[str, AfterValidator(one_of(KV_TYPES))] = _batching(
        "f16", f"data type of the KV cache: {', '.join(KV_TYPES)}", "TYPE"
    )
    checkpoints: Annotated[int | Literal["auto"], word_or_number("auto", least=1)] = _batching(
        "auto",
        "number of states of recurrent layers (Mamba, delta net, LFM2), or of windows of layers with a "
        "sliding window, saved so that later requests can continue from them; auto: 64 states, or fewer if "
        "they would take more than a tenth of free memory, and windows that take an eighth of the cache",
        "N|auto",
    )
    checkpoint_interval: int = _batching(
        512, "tokens of a long prompt between saved states or windows", "N", ge=1, le=1 << 20
    )
    context_shift: bool = _batching(
        False,
        "when the context of a request is full, drop half of the tokens after its first n_keep and continue, "
        "instead of ending the request",
        shared=False,
    )
    batch_size: int = _batching(
        512,
        "maximum prompt tokens of one request per step (prefill chunk; n_batch), unless the request sets it",
        "N",
        ge=1,
        le=65536,
    )
    max_batch_tokens: int = _batching(
        512,
        "maximum tokens of all requests per step (physical batch); also the upper limit of n_batch",
        "N",
        ge=1,
        le=65536,
    )

    spec_type: Literal["auto", "none", "ngram-simple", "draft-simple"] = _batching(
        "auto",
        "speculative decoding, unless the request sets it; ngram-simple: draft the tokens that followed an "
        "earlier occurrence of the last ones, in the prompt or in the output; draft-simple: draft with the "
        "draft model; auto: draft-simple if there is a draft model, otherwise none",
        "auto|none|ngram-simple|draft-simple",
        shared=False,
    )
    spec_draft_n_max: int = _batching(
        16,
        "maximum number of tokens drafted per step of a request, unless the request sets it; fewer are "
        "drafted if that is faster",
        "N",
        shared=False,
        ge=0,
        le=MAX_DRAFT,
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
            self.sources()
        if self.alias:
            self.aliases()
        self.lora_adapters()
        self.tensor_overrides()
        if self.cpu_moe and self.n_cpu_moe is not None:
            raise ValueError(
                "n_cpu_moe: cpu_moe leaves the experts of all layers on the CPU; give one of them"
            )
        if (self.lora or self.draft_model) and (len(self.model) > 1 or self.models_dir is not None):
            name = "lora: adapters belong" if self.lora else "draft_model: it belongs"
            raise ValueError(f"{name} to one model, but several are served")
        if self.spec_type == DRAFT_MODEL and self.draft_model is None:
            raise ValueError("spec_type: draft-simple requires a draft model; give draft_model")
        self.sampling_defaults()
        return self

    def sampling_defaults(self) -> dict[str, Any]:
        """The values of --default by field name of `InferenceParameters`."""
        try:
            return sampling_defaults(self.default)
        except ValueError as error:
            raise ValueError(f"default: {error}") from error

    def sources(self) -> dict[str, str]:
        """Served name → a path or another name that `server.models` resolves, in order; without the models of
        a folder.
        """
        sources: dict[str, str] = {}
        for text in self.model or ([reference.DEFAULT] if self.models_dir is None else []):
            name, equals, rest = text.partition("=")
            # A path may itself contain "=".
            if not equals or not name or name.startswith(("/", ".", "~")) or Path(text).exists():
                name, rest = "", text
            if not rest.strip():
                raise ValueError(f"model: {text!r} has no path; give PATH or NAME=PATH")
            name = name or _served_name(rest)
            if len(name) > 200 or not name.isprintable():
                raise ValueError(f"model: the name {name[:200]!r} is too long or contains control characters")
            if name in sources:
                raise ValueError(f"model: two files would be called {name!r}; use NAME=PATH for one")
            sources[name] = rest
        return sources

    def models(self) -> dict[str, Path]:
        """Served name → file, in order, once every model is a file (`with_files`).

        The files are not checked.
        """
        return {name: Path(source).expanduser() for name, source in self.sources().items()}

    def with_files(self, files: Mapping[str, Path]) -> Self:
        """The same options for these models: served name → file. Raises ValueError if an option does not
        match the names.
        """
        settings = self.model_copy(update={"model": [f"{name}={path}" for name, path in files.items()]})
        settings.aliases()
        return settings

    def model_parameters(self) -> ModelParameters:
        """The parameters for `engine.load`."""
        return ModelParameters(
            use_gpu=self.use_gpu,
            gpu_layers=self.gpu_layers,
            devices=tuple(self.device),
            tensor_split=tuple(self.tensor_split),
            cpu_experts="all" if self.cpu_moe else self.n_cpu_moe,
            tensor_overrides=self.tensor_overrides(),
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
            lora_adapters=self.lora_adapters(),
            checkpoints=None if self.checkpoints == "auto" else self.checkpoints,
            checkpoint_interval=self.checkpoint_interval,
            context_shift=self.context_shift,
            draft_model=None if self.draft_model is None else str(self.draft_model.expanduser()),
            draft_gpu_layers=self.draft_gpu_layers,
            memory_limit=self.models_memory,
        )

    def lora_adapters(self) -> tuple[LoraAdapter, ...]:
        """The adapters of --lora, by number."""
        try:
            return tuple(map(lora_adapter, self.lora))
        except ValueError as error:
            raise ValueError(f"lora: {error}") from error

    def tensor_overrides(self) -> tuple[tuple[str, str], ...]:
        """(pattern, device) of each --override-tensor. Device names are not checked."""
        try:
            return tuple(map(tensor_override, self.override_tensor))
        except ValueError as error:
            raise ValueError(f"override_tensor: {error}") from error

    def aliases(self) -> dict[str, str]:
        """Additional name → served name."""
        served = self.sources()
        aliases: dict[str, str] = {}
        for text in self.alias:
            name, equals, alias = text.partition("=")
            if not equals:
                name, alias = next(iter(served), ""), text
            if name not in served and not (name and self.models_dir is not None):
                raise ValueError(
                    f"alias: no model is called {name[:200]!r}; the models are {', '.join(served)}"
                )
            if not alias or len(alias) > 200 or not alias.isprintable():
                raise ValueError(f"alias: {alias[:200]!r} is not a valid name")
            if alias in served or aliases.get(alias, name) != name:
                raise ValueError(f"alias: two models would be called {alias!r}")
            aliases[alias] = name
        return aliases


def _served_name(source: str) -> str:
    try:
        named = reference.parse(source)
    except ValueError as error:
        raise ValueError(f"model: {error}") from None
    return named.served_name if named else model_name(Path(source).expanduser())
