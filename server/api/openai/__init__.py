"""OpenAI's API."""

from __future__ import annotations

from server.api.common.api import Api
from server.api.openai import embeddings, models
from server.api.openai.chat import routes as chat
from server.api.openai.completions import routes as completions
from server.api.openai.conversations import routes as conversations
from server.api.openai.responses import routes as responses

API = Api(
    routers=(
        completions.router,
        chat.router,
        responses.router,
        responses.json_routes,
        conversations.router,
        conversations.json_routes,
        embeddings.router,
        models.router,
    )
)
