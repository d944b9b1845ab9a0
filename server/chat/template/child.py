"""The process that renders chat templates: `python -m server.chat.template.child CPU_SECONDS HANDLE`.

A message is a pickled `(source, variables)`, which only the server writes; without variables the template is
only compiled. The answer is a letter and a text, never a pickle: the server does not trust this process.
"""

from __future__ import annotations

import gc
import pickle
import sys
from functools import lru_cache
from typing import Any

from jinja2 import Template
from jinja2.exceptions import SecurityError, TemplateError

from server.chat.template.answer_kinds import FAILED, RENDERED
from server.chat.template.environment import chat_environment
from server.sandbox.child import connect, limit_memory, serve

MEMORY = 1 << 29
MAX_OUTPUT = 1 << 24  # characters
# End this process, so that the next rendering has all of the memory. A compilation for which memory is short
# raises SystemError in CPython 3.13.
OUT_OF_MEMORY = (MemoryError, SystemError)


@lru_cache(maxsize=8)
def _compiled(source: str) -> Template:
    return chat_environment().from_string(source)


def answer(message: bytes) -> bytes:
    """RENDERED and the text, or FAILED and a reason that the client may see. Raises OUT_OF_MEMORY."""
    source, variables = pickle.loads(message)
    try:
        kind, text = RENDERED, _render(source, variables)
    except _Failure as failure:
        kind, text = FAILED, str(failure)
    if kind == FAILED:
        gc.collect()  # Jinja's traceback is in a circle with all that the template held: up to our limit
    return kind + text.encode("utf-8", "surrogatepass")


class _Failure(Exception):
    pass


def _render(source: str, variables: dict[str, Any] | None) -> str:
    try:
        template = _compiled(source)
    except OUT_OF_MEMORY:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise _Failure(f"the model's chat template cannot be used: {reason}") from None
    if variables is None:
        return ""
    try:
        text = template.render(variables)
    except OUT_OF_MEMORY:
        raise
    except SecurityError:
        raise _Failure("the model's chat template does something that is not allowed") from None
    except TemplateError as error:
        reason = " ".join(str(error).split())[:500]
        raise _Failure(f"the model's chat template refuses these messages: {reason}") from None
    except Exception as error:
        # Python's own message may hold addresses (a repr), so only its type is shown.
        raise _Failure(
            f"the model's chat template fails on these messages ({type(error).__name__})"
        ) from None
    if len(text) > MAX_OUTPUT:
        raise _Failure(f"the model's chat template makes more than {MAX_OUTPUT} characters")
    return text


def main() -> int:
    limit_memory(MEMORY)
    serve(connect(), answer, float(sys.argv[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
