"""Ollama's API."""

from __future__ import annotations

from server.api.common.api import Api
from server.api.ollama import models, routes
from server.api.ollama.formatter import ERRORS

API = Api(routers=(routes.router, models.router, models.with_body), errors=ERRORS)
