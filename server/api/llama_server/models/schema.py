"""POST /v1/models/load and /unload, and llama-server's equivalents."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from server.api.common.schema import Reply, Schema, field, required


class ModelNameRequest(Schema):
    model: Annotated[str, Field(min_length=1, max_length=512)] = required("one of /v1/models", "stories")


class LoadModelRequest(ModelNameRequest):
    stream: bool | None = field("report progress in server-sent events", False)
    reload: bool | None = field(
        "load the current file even if the model is loaded; the old engine finishes its requests",
        True,
    )


class ModelChangedReply(Reply):
    success: bool = required("always true", True)
    model: str = required("the model's name", "stories")
    state: str = required("as in /v1/models", "ready")
