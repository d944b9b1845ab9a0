"""What clients may know of a model's description."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from server.chat.chat_format import ChatFormats

_UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K"))


def public_info(info: dict[str, Any]) -> dict[str, Any]:
    """Everything but paths, which clients that only ask for text need not see."""
    return {key: value for key, value in info.items() if key not in ("path", "file")}


def parameter_size(n: int) -> str:
    """The number of parameters as models are called by it: 134.5M, 7.248B."""
    return next((f"{n / scale:.4g}{unit}" for scale, unit in _UNITS if n >= scale), str(n))


def capabilities(info: Mapping[str, Any], tokenizer: Any, chat: ChatFormats | None) -> list[str]:
    """What a model can do, in Ollama's words. chat: None: it has no chat template."""
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
