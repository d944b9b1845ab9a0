"""The HTTP APIs, each in its own package that does not know the others. For `server.app` only."""

from __future__ import annotations

from server.api import anthropic, ggserve, llama_server, ollama, openai
from server.api.common.api import Api

APIS: tuple[Api, ...] = (openai.API, anthropic.API, llama_server.API, ollama.API, ggserve.API)
