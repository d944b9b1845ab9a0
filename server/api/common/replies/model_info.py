"""The parts of a model's description that clients may see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from server.chat.prompt import ChatFormats
from server.generation.request_context import RequestContext
from server.input.processor import chat_support
from server.registry.served_model import ServedModel

_UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K"))


class ModelDetails(NamedTuple):
    """info: a loaded model's description, or the part of it that the file tells; {} if nothing is known.

    template: the chat template. parameters: the server's defaults. Both for loaded models only.
    """

    info: Mapping[str, Any]
    capabilities: list[str]
    template: str = ""
    parameters: Mapping[str, Any] = {}


async def model_details(model: ServedModel, context: RequestContext) -> ModelDetails:
    """What is known about a model without loading it."""
    registry = context.state.registry
    lease = registry.acquire(model, counts=False)
    if lease is None:
        header = await registry.header(model)
        return ModelDetails(header, header_capabilities(header))
    context.record.leases.append(lease)
    engine = context.engine = lease.residency.engine
    info, formats = engine.info or {}, (await chat_support(context)).formats
    abilities = capabilities(info, engine.tokenizer, formats)
    template = formats.plain.template.source if isinstance(formats, ChatFormats) else ""
    return ModelDetails(info, abilities, template, context.default_sampling)


def public_info(info: dict[str, Any]) -> dict[str, Any]:
    """A model's description without paths, which clients must not see."""
    public = {key: value for key, value in info.items() if key not in ("path", "file")}
    if "lora" in info:
        public["lora"] = [{k: v for k, v in adapter.items() if k != "path"} for adapter in info["lora"]]
    return public


def metadata(name: str, info: Mapping[str, Any]) -> dict[str, Any]:
    """A model's description under the keys that GGUF files use."""
    arch = info.get("architecture", "")
    return {
        "general.architecture": arch,
        "general.basename": name,
        "general.parameter_count": info.get("n_params", 0),
        f"{arch}.context_length": info.get("n_ctx_train", info.get("n_ctx", 0)),
        f"{arch}.embedding_length": info.get("n_embd", 0),
        f"{arch}.block_count": info.get("n_layer", 0),
    }


def parameter_size(n: int) -> str:
    """The number of parameters as models are usually named: 134.5M, 7.248B."""
    return next((f"{n / scale:.4g}{unit}" for scale, unit in _UNITS if n >= scale), str(n))


def capabilities(info: Mapping[str, Any], tokenizer: Any, formats: object) -> list[str]:
    """What a model can do, in Ollama's terms.

    formats: the model's chat formats, as `ChatSupport` has them.
    """
    chat = formats if isinstance(formats, ChatFormats) else None
    generates = info.get("generates") is not False
    capabilities = {
        "completion": generates,
        "insert": all(
            getattr(tokenizer, f"fim_{part}_id", None) is not None for part in ("pre", "suf", "mid")
        ),
        "tools": generates and chat is not None,
        "thinking": generates and chat is not None and chat.plain.markers is not None,
        "embedding": not generates,
    }
    return [name for name, there in capabilities.items() if there]


def header_capabilities(header: Mapping[str, Any]) -> list[str]:
    """The same for a model that is not loaded, from its file (`server.registry.header`)."""
    if not header:
        return []
    if not header["generates"]:
        return ["embedding"]
    return ["completion", "tools"] if header["takes_tools"] else ["completion"]
