"""What clients may know of a model's description."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from server.chat.chat_format import ChatFormats

_UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K"))


def public_info(info: dict[str, Any]) -> dict[str, Any]:
    """Everything but paths, which clients that only ask for text need not see."""
    public = {key: value for key, value in info.items() if key not in ("path", "file")}
    if "lora" in info:
        public["lora"] = [{k: v for k, v in adapter.items() if k != "path"} for adapter in info["lora"]]
    return public


def parameter_size(n: int) -> str:
    """The number of parameters as models are called by it: 134.5M, 7.248B."""
    return next((f"{n / scale:.4g}{unit}" for scale, unit in _UNITS if n >= scale), str(n))


def capabilities(info: Mapping[str, Any], tokenizer: Any, formats: object) -> list[str]:
    """What a model can do, in Ollama's words. formats: of its chat, as `ChatSupport` has them."""
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
    """The same of a model that is not loaded, from what its file says (`server.registry.header`)."""
    if not header:
        return []
    if not header["generates"]:
        return ["embedding"]
    return ["completion", "tools"] if header["takes_tools"] else ["completion"]
