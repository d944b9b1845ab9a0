"""llama-server's own API. Its chat routes are in the OpenAI package."""

from __future__ import annotations

from server.api.common.api import Api
from server.api.llama_server import embeddings, lora, props
from server.api.llama_server.completion import routes as completion
from server.api.llama_server.models import routes as models
from server.api.llama_server.rerank import routes as rerank
from server.api.llama_server.slots import routes as slots
from server.api.llama_server.tokenize import routes as tokenize

API = Api(
    routers=(
        completion.router,
        embeddings.router,
        rerank.router,
        tokenize.router,
        tokenize.get_router,
        slots.router,
        lora.router,
        lora.with_body,
        props.router,
        models.router,
        models.with_body,
    )
)
