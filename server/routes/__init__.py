"""One file per resource; each has a `router`."""

from __future__ import annotations

from fastapi import APIRouter

from server.routes import (
    chat,
    completion,
    completions,
    embeddings,
    health,
    messages,
    metrics,
    models,
    page,
    plan,
    props,
    requests,
    rerank,
    responses,
    slots,
    tokenize,
)

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
