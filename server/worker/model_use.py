"""The purpose of a served model, so that examples and advice suit it."""

from __future__ import annotations

from typing import Literal

from server.worker.engine import Engine

ModelUse = Literal["chat", "text", "embeddings", "ranking"]


def model_use(engine: Engine, template: object = None) -> ModelUse:
    """template: a chat template that replaces the model's own. A model that is not loaded counts as text."""
    info = engine.info
    if info is None:
        return "text"
    if info.get("n_scores") and (info.get("pooling") == "rank" or info.get("generates") is False):
        return "ranking"
    if info.get("generates") is False:
        return "embeddings"
    return "chat" if template or getattr(engine.tokenizer, "chat_template", None) else "text"
