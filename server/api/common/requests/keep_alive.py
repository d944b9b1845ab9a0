"""How long a model stays loaded without requests, if a request sets it, and requests that unload a model."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from server.api.common.schema import INT_MAX
from server.errors import admin_required
from server.generation.request_context import RequestContext

_DURATION = re.compile(r"0|[-+]?(([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+")  # as Go writes it
_PART = re.compile(r"([0-9.]+)([a-zµμ]+)")
_UNIT_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def _seconds(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if not _DURATION.fullmatch(value):
        raise ValueError("must be a number of seconds, or a duration such as 1h30m")
    seconds = sum(float(number) * _UNIT_S[unit] for number, unit in _PART.findall(value))
    return -seconds if value.startswith("-") else seconds


# In seconds; below 0: for ever.
KeepAlive = Annotated[
    float,
    Field(ge=-INT_MAX, le=INT_MAX),
    BeforeValidator(_seconds),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": -INT_MAX, "maximum": INT_MAX},
                {"type": "string", "pattern": f"^({_DURATION.pattern})$"},
            ]
        }
    ),
]


def set_keep_alive(seconds: float, context: RequestContext) -> None:
    """Set it for the request's model until that is unloaded; warn if it has no effect."""
    if not context.model.in_folder:
        if seconds >= 0:
            context.warn("keep_alive has no effect: models of --model stay loaded")
    elif context.client.is_admin:
        context.model.keep_alive_s = None if seconds < 0 else seconds
    else:
        context.warn("keep_alive has no effect: it needs an API key with the role admin")


def unload_when_idle(context: RequestContext) -> None:
    """Begin to unload the request's model; later requests load it again. Raises ApiError (403) for a client
    that is not allowed to.
    """
    if context.model.in_folder:
        if not context.client.is_admin:
            raise admin_required()
        context.state.registry.begin_unload(context.model)
