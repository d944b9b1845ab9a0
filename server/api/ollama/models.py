"""What Ollama's clients ask about models, and what they cannot change here."""

from __future__ import annotations

import hashlib
from typing import Any

from fastapi import APIRouter
from msgspec.json import encode

from server.api.common.replies.model_info import capabilities, memory_use, parameter_size
from server.chat.chat_format import ChatFormats
from server.dependencies import ContextDep, StateDep
from server.errors import ApiError
from server.generation.request_context import RequestContext
from server.input.chat import chat_support
from server.worker.engine import Engine

# Clients use what came with a version of Ollama only from that version on: the one whose API this is.
OLLAMA_VERSION = "0.33.0"
NEVER = "9999-12-31T23:59:59Z"
router = APIRouter()


@router.get("/api/version")
@router.head("/api/version", include_in_schema=False)
async def ollama_version() -> dict[str, str]:
    """The version of Ollama whose API this is."""
    return {"version": OLLAMA_VERSION}


@router.get("/api/tags")
@router.head("/api/tags", include_in_schema=False)
async def tags(context: ContextDep) -> dict[str, Any]:
    """The models served. One that is loading has neither figures nor capabilities."""
    models = []
    for name in context.state.engines:
        engine = context.select_engine(name, ready=False)
        model = {**_model(engine), "modified_at": context.state.started_at}
        if engine.info is not None:
            formats = (await chat_support(context)).formats
            model["capabilities"] = capabilities(engine.info, engine.tokenizer, formats)
        models.append(model)
    return {"models": models}


@router.get("/api/ps")
async def loaded_models(state: StateDep) -> dict[str, Any]:
    """The models in memory: all that are served, with the memory that was planned for them."""
    return {"models": [_loaded(engine) for engine in state.engines.values() if engine.info is not None]}


@router.post("/api/create", include_in_schema=False)
@router.post("/api/copy", include_in_schema=False)
@router.post("/api/push", include_in_schema=False)
@router.api_route("/api/blobs/{digest}", methods=["HEAD", "POST"], include_in_schema=False)
async def change_models() -> None:
    """Always 501."""
    message = "models cannot be created, copied or pushed over HTTP; start the server with --model NAME=FILE"
    raise ApiError(501, f"{message}, or --alias for another name", code="not_supported")


async def describe_model(context: RequestContext) -> dict[str, Any]:
    """The selected model as /api/show has it."""
    engine, info = context.engine, context.engine.info or {}
    formats = (await chat_support(context)).formats
    arch = info.get("architecture", "")
    return {
        "modelfile": "",
        "parameters": "\n".join(f"{name:<30} {value}" for name, value in context.default_sampling.items()),
        "template": formats.plain.template.source if isinstance(formats, ChatFormats) else "",
        "details": _details(engine),
        "model_info": {
            "general.architecture": arch,
            "general.basename": engine.name,  # by which VS Code lists the model
            "general.parameter_count": info.get("n_params", 0),
            f"{arch}.context_length": info.get("n_ctx_train", engine.n_ctx),
            f"{arch}.embedding_length": info.get("n_embd", 0),
            f"{arch}.block_count": info.get("n_layer", 0),
        },
        "capabilities": capabilities(info, engine.tokenizer, formats),
        "modified_at": context.state.started_at,
    }


def _model(engine: Engine) -> dict[str, Any]:
    """digest: tells models apart. It is not that of the file, which would have to be read for it."""
    info = engine.info or {}
    name = engine.name if ":" in engine.name else f"{engine.name}:latest"
    differs = [engine.name, *(info.get(key) for key in ("architecture", "n_params", "size_bytes"))]
    digest = hashlib.sha256(encode(differs)).hexdigest()
    size = info.get("size_bytes", 0)
    return {"name": name, "model": name, "size": size, "digest": digest, "details": _details(engine)}


def _loaded(engine: Engine) -> dict[str, Any]:
    size, on_gpus = memory_use(engine.info or {})
    sizes = {"size": size, "size_vram": on_gpus, "context_length": engine.n_ctx}
    return {**_model(engine), **sizes, "expires_at": NEVER}


def _details(engine: Engine) -> dict[str, Any]:
    info = engine.info or {}
    arch = info.get("architecture", "")
    return {
        "parent_model": "",
        "format": "gguf",
        "family": arch,
        "families": [arch],
        "parameter_size": parameter_size(info.get("n_params", 0)),
        "quantization_level": (info.get("file_type") or "unknown").partition(" ")[0],
        "context_length": info.get("n_ctx_train", 0),
        "embedding_length": info.get("n_embd", 0),
    }
