"""Tool call arguments as objects, for APIs that do not send them as text."""

from __future__ import annotations

from typing import Any

import msgspec

from engine import exact_json
from engine.errors import ConfigError
from server.generation.request_context import RequestContext


def arguments_object(text: str, where: str, context: RequestContext) -> dict[str, Any] | msgspec.Raw:
    """The arguments as one line of JSON that keeps all digits of numbers; {} without arguments.

    Without a constraint, or when a limit cut the output off, the model may write something that is not an
    object. It becomes an empty object, with a warning that names the field `where`.
    """
    try:
        value = exact_json.loads(text or "{}")
        if isinstance(value, dict):
            return msgspec.Raw(exact_json.dumps(value).encode())
    except ConfigError:
        pass
    context.warn(f"{where}: the model did not write a JSON object, so it is empty")
    return {}
