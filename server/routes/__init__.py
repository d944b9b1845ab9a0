"""One file per resource; each has a `router`."""

from __future__ import annotations

from fastapi import APIRouter

from server.routes import (
    chat,
    completions,
    embeddings,
    health,
    messages,
    metrics,
    models,
    native,
    page,
    plan,
    requests,
    responses,
    slots,
    tokenize,
)

MODULES = (
    completions,
    chat,
    responses,
    embeddings,
    models,
    health,
    messages,
    metrics,
    tokenize,
    requests,
    plan,
    slots,
    native,
    page,
)
ROUTERS: tuple[APIRouter, ...] = tuple(module.router for module in MODULES)
