"""One file per resource; each has a `router`."""

from __future__ import annotations

from fastapi import APIRouter

from server.api.anthropic import routes as messages
from server.api.ggserve import health, metrics, page, requests
from server.api.ggserve.plan import routes as plan
from server.api.llama_server import props
from server.api.llama_server.completion import routes as completion
from server.api.llama_server.rerank import routes as rerank
from server.api.llama_server.slots import routes as slots
from server.api.llama_server.tokenize import routes as tokenize
from server.api.openai import models
from server.api.openai.chat import routes as chat
from server.api.openai.completions import routes as completions
from server.api.openai.embeddings import routes as embeddings
from server.api.openai.responses import routes as responses

MODULES = (
    completions,
    chat,
    completion,
    responses,
    embeddings,
    rerank,
    models,
    health,
    messages,
    metrics,
    tokenize,
    requests,
    plan,
    slots,
    props,
    page,
)
ROUTERS: tuple[APIRouter, ...] = tuple(module.router for module in MODULES)
