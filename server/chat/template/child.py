"""The process that renders chat templates: `python -m server.chat.template.child CPU_SECONDS HANDLE`.

A message is a pickled `(source, variables)`, which only the server writes; without variables the template is
only compiled. The answer is a letter and a text, never a pickle: the server does not trust this process.
"""

from __future__ import annotations

import gc
import pickle
import sys
from datetime import datetime
from functools import lru_cache
from typing import Any

from jinja2 import Template, nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import SandboxedEnvironment

from engine import exact_json
from server.chat.template.answer_kinds import FAILED, RENDERED
from server.sandbox.child import connect, limit_memory, serve


class _Generation(Extension):
    """{% generation %} … {% endgeneration %} encloses the assistant's text. It is rendered as its content."""

    tags = {"generation"}  # noqa: RUF012 - the base class declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def chat_environment() -> SandboxedEnvironment:
    """The environment, set up as in `transformers`, without a loader: a template cannot include another one.

    Unlike there, templates may change their own lists, as Kimi K2's does and llama.cpp allows; no other
    rendering sees the change. Jinja's sandbox keeps a template from reaching the system, but not from running
    forever or filling memory; this process does.
    """
    environment = SandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation]
    )
    environment.filters |= {"tojson": _tojson, "split": str.split}
    del environment.filters["attr"]  # of use for escapes only
    environment.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
    return environment


def _raise_exception(message: str) -> None:
    """The function with which a template refuses a conversation."""
    raise TemplateError(str(message)[:500])


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return exact_json.write(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


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
