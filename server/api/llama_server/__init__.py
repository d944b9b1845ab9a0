"""llama-server's own API. Its chat routes are in the OpenAI package."""

from __future__ import annotations

from server.api.common.api import Api
from server.api.llama_server import embeddings, lora, models, props, rerank, slots, tokenize
from server.api.llama_server.completion import routes as completion

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
