"""What the schemas of all APIs are built from."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

INT_MAX = 2**31 - 1
MAX_MESSAGES = 4096


class Schema(BaseModel):
    """Types are not coerced ("5" is no number). Unknown fields are kept, to be named in `warnings`."""

    model_config = ConfigDict(
        strict=True,
        extra="allow",
        allow_inf_nan=False,
        protected_namespaces=(),
        hide_input_in_errors=True,
        defer_build=True,  # until its route is prepared (`server.http.route`)
    )


class Reply(BaseModel):
    """A response, for the API description; the bytes are written by hand."""

    model_config = ConfigDict(protected_namespaces=(), defer_build=True)


def field(description: str, example: Any, **bounds: Any) -> Any:
    """A field that may be left out."""
    return Field(None, description=description, examples=[example], **bounds)


def required(description: str, example: Any, **more: Any) -> Any:
    """A field that is always there."""
    return Field(description=description, examples=[example], **more)
