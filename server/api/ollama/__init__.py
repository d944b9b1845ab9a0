"""Ollama's API."""

from __future__ import annotations

from server.api.common.api import Api
from server.api.ollama import embeddings, models, pull, routes
from server.api.ollama.errors import ERRORS

API = Api(routers=(routes.router, embeddings.router, models.router, pull.router), errors=ERRORS)
