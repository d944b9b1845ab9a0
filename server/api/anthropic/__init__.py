"""Anthropic's API."""

from __future__ import annotations

from server.api.anthropic import routes
from server.api.anthropic.errors import ERRORS
from server.api.common.api import Api

API = Api(routers=(routes.router,), errors=ERRORS)
