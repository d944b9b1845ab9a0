"""Sampling parameters for requests that omit them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# llama-server's, where they are not those of `engine.InferenceParameters`. With OpenAI's (the whole
# vocabulary at temperature 1), small models write nonsense.
LLAMA_SERVER = {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05}


def default_sampling(info: Mapping[str, Any] | None, operator: Mapping[str, Any]) -> dict[str, Any]:
    """--default's values, else the model file's (`sampling` in the engine's info), else llama-server's."""
    return {**LLAMA_SERVER, **(info or {}).get("sampling", {}), **operator}
