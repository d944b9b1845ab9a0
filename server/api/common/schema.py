"""Base classes and helpers for the schemas of all APIs."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

INT_MAX = 2**31 - 1
MAX_MESSAGES = 4096


class Schema(BaseModel):
    """Types are not coerced ("5" is not a number). Unknown fields are kept, to be named in `warnings`."""

    model_config = ConfigDict(
        strict=True,
        extra="allow",
        allow_inf_nan=False,
        protected_namespaces=(),
        hide_input_in_errors=True,
        defer_build=True,  # until its route is prepared (`server.http.route`)
    )


class Reply(BaseModel):
    """A response, for the API description only; the bytes are written by hand."""

    model_config = ConfigDict(protected_namespaces=(), defer_build=True)


def field(description: str, example: Any, **bounds: Any) -> Any:
    """An optional field."""
    return Field(None, description=description, examples=[example], **bounds)


def required(description: str, example: Any, **more: Any) -> Any:
    """A field that is always present."""
    return Field(description=description, examples=[example], **more)
