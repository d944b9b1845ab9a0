"""A Jinja environment for templates that come with model files, which nobody has read.

As `transformers` sets it up (trim_blocks, lstrip_blocks, loop controls, {% generation %}, raise_exception,
strftime_now, its tojson), made immutable, without loaders, and bounded: see `server.chat.template.budget`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from server.chat.template.budget import TemplateLimit, current

MAX_RANGE = 10_000
MAX_POWER_BITS = 512
_FILTERS = [
    "abs",
    "capitalize",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "first",
    "float",
    "groupby",
    "int",
    "items",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "sort",
    "string",
    "sum",
    "title",
    "trim",
    "unique",
    "upper",
    "wordcount",
]
_WIDTH = re.compile(r"\d{4}|\*|:[^}]*\{")  # widths that make a few characters into a gigabyte


class Generation(Extension):
    """{% generation %} … {% endgeneration %} marks what the assistant wrote; here it is only its content."""

    tags = {"generation"}  # noqa: RUF012 - the base class declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def raise_exception(message: str) -> None:
    """How a template refuses a conversation."""
    raise TemplateError(str(message)[:500])


def strftime_now(format: str) -> str:
    if len(format) > 64 or re.search(r"%[-_0^#]*\d", format):
        raise TemplateLimit("the chat template asks for too long a date")
    return datetime.now().strftime(format)


def tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    if isinstance(indent, int | str) and (indent if isinstance(indent, int) else len(indent)) > 16:
        raise TemplateLimit("the chat template indents too far")
    current().text(2 * current().measure(value))
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _range(*bounds: int) -> range:
    found = range(*bounds)
    if len(found) > MAX_RANGE:
        raise TemplateLimit(f"range() of more than {MAX_RANGE} in the chat template")
    return found


def _indent(text: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    pad = " " * width if isinstance(width, int) and width <= 64 else str(width)[:64]
    lines = str(text).splitlines(keepends=True)
    current().text(len(text) + len(lines) * len(pad))
    out = [pad + line if (i or first) and (blank or line.strip()) else line for i, line in enumerate(lines)]
    return "".join(out)


def _split_filter(text: str, separator: str | None = None, maxsplit: int = -1) -> list[str]:
    return text.split(separator, maxsplit)


def _finalize(value: Any) -> Any:
    budget = current()
    budget.text(budget.measure(value))
    return value


def _each(items: Any, text: int) -> Any:
    """What a {% for %} runs over. `text`: literal characters of its body."""
    budget = current()
    if hasattr(items, "__len__"):  # kept as it is: `loop.length` needs it
        budget.step(len(items))
        budget.text(len(items) * text)
        return items
    return _counted(items, text)


def _counted(items: Any, text: int) -> Iterator[Any]:
    budget = current()
    for item in items:
        budget.step()
        budget.text(text)
        yield item


def _measured(value: Any) -> Any:
    current().measure(value)
    return value


def _concat(values: tuple[Any, ...]) -> str:
    budget = current()
    budget.text(sum(map(budget.measure, values)))
    return "".join(map(str, values))


def _literal_text(node: nodes.Node) -> int:
    return sum(len(data.data) for data in node.find_all(nodes.TemplateData))


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """The environment of one template."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=False,
            extensions=[loopcontrols, Generation],
            finalize=_finalize,
            cache_size=0,
        )
        self.macro_text = 0
        known: dict[str, Callable[..., Any]] = {name: self.filters[name] for name in _FILTERS}
        own = {"tojson": tojson, "indent": _indent, "split": _split_filter}
        private = {
            "each of": _each,
            "measured": _measured,
            "concat of": _concat,
        }  # names no template can write
        self.filters = {**{k: _guarded(v) for k, v in known.items()}, **own, **private}
        self.globals = {
            "range": _range,
            "dict": dict,
            "namespace": self.globals["namespace"],
            "raise_exception": raise_exception,
            "strftime_now": strftime_now,
        }

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        for forbidden in (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends):
            if source.find(forbidden):
                raise TemplateError(f"{forbidden.__name__.lower()} is not allowed in a chat template")
        self.macro_text = sum(map(_literal_text, source.find_all((nodes.Macro, nodes.CallBlock))))
        self._rewrite(source)
        source.set_environment(self)
        return super()._generate(source, *args, **kwargs)

    def _rewrite(self, node: nodes.Node) -> nodes.Node:
        """Put our filters around what runs and what grows without a call that the sandbox would see."""
        for name, value in node.iter_fields():
            if isinstance(value, nodes.Node):
                setattr(node, name, self._rewrite(value))
            elif isinstance(value, list):
                setattr(node, name, [self._rewrite(v) if isinstance(v, nodes.Node) else v for v in value])
        line = node.lineno
        if isinstance(node, nodes.For):
            text = nodes.Const(_literal_text(node), lineno=line)
            node.iter = nodes.Filter(node.iter, "each of", [text], [], None, None, lineno=line)
        elif isinstance(node, nodes.Concat):
            parts = nodes.Tuple(node.nodes, "load", lineno=line)
            return nodes.Filter(parts, "concat of", [], [], None, None, lineno=line)
        elif isinstance(node, nodes.List | nodes.Dict) or (
            isinstance(node, nodes.Tuple) and node.ctx == "load"
        ):
            return nodes.Filter(node, "measured", [], [], None, None, lineno=line)
        return node

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        budget = current()
        budget.step()
        if operator == "+" and isinstance(left, str | list | tuple):
            budget.text(budget.measure(left) + budget.measure(right))
        elif operator == "*":
            self._check_product(left, right)
        elif operator == "**":
            if not _small_power(left, right):
                raise TemplateLimit("too large a power in the chat template")
        elif operator == "%" and isinstance(left, str):
            if _WIDTH.search(left):
                raise TemplateLimit("too wide a format in the chat template")
            budget.text(len(left) + budget.measure(right))
        return super().call_binop(context, operator, left, right)

    def _check_product(self, left: Any, right: Any) -> None:
        if isinstance(left, int) and isinstance(right, int):
            if left.bit_length() + right.bit_length() > MAX_POWER_BITS:
                raise TemplateLimit("too large a number in the chat template")
            return
        for sequence, times in ((left, right), (right, left)):
            if isinstance(sequence, str | list | tuple) and isinstance(times, int):
                budget = current()
                n = budget.measure(sequence) * max(times, 0)
                budget.text(n)
                if not isinstance(sequence, str):
                    budget.step(n)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        budget = current()
        budget.step()
        if isinstance(__obj, Macro):
            budget.text(__self.macro_text)
        method = getattr(__obj, "__wrapped__", __obj)  # Jinja wraps format() in one of its own
        owner = getattr(method, "__self__", None)
        if isinstance(owner, str | bytes):
            _check_method(owner, method.__name__, args)
        result = super().call(__context, __obj, *args, **kwargs)
        if isinstance(result, str | list | dict):
            n = budget.measure(result)
            if isinstance(result, str):
                budget.text(n)
        return result


def _small_power(left: Any, right: Any) -> bool:
    if not isinstance(left, int | float) or not isinstance(right, int | float):
        return True  # Python refuses it
    if isinstance(left, float) or isinstance(right, float):
        return True
    return left.bit_length() * right <= MAX_POWER_BITS


def _check_method(text: str | bytes, name: str, args: tuple[Any, ...]) -> None:
    """Methods of strings whose result can be far larger than what they are given."""
    if name in ("ljust", "rjust", "center", "zfill", "expandtabs", "translate", "encode", "format_map"):
        raise TemplateLimit(f"{name}() is not allowed in a chat template")
    if name == "format" and isinstance(text, str) and _WIDTH.search(text):
        raise TemplateLimit("too wide a format in the chat template")
    budget = current()
    if name == "join":
        items = list(args[0]) if args and not isinstance(args[0], str) else []
        budget.text(sum(map(budget.measure, items)) + len(text) * len(items))
    elif name == "replace" and len(args) >= 2 and isinstance(args[0], str) and isinstance(args[1], str):
        _check_replace(str(text), args[0], args[1])
    elif name == "format":
        budget.text(len(text) + sum(map(budget.measure, args)) * max(1, len(text) // 2))
    else:
        budget.text(len(text) // 8)
        if name in ("split", "rsplit", "splitlines"):
            budget.step(len(text) // 256)


def _check_replace(text: str, old: str, new: str) -> None:
    times = text.count(old) if old else len(text) + 1
    current().text(len(text) + times * len(new))


def _guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter of Jinja whose arguments are measured first."""
    name = function.__name__

    def guarded(*args: Any, **kwargs: Any) -> Any:
        budget = current()
        budget.step()
        values = [arg for arg in args if not isinstance(arg, Context | TemplateEnvironment | Undefined)]
        sizes = [budget.measure(value) for value in values]
        budget.text(sum(sizes))
        if name == "do_replace" and len(values) >= 3:
            _check_replace(str(values[0]), str(values[1]), str(values[2]))
        elif name in ("do_join", "sync_do_join") and len(values) >= 2 and hasattr(values[0], "__len__"):
            budget.text(sizes[1] * len(values[0]))
        return function(*args, **kwargs)

    # Jinja reads from the function what it wants as its first argument.
    for attribute in ("jinja_pass_arg", "jinja_async_variant"):
        if hasattr(function, attribute):
            setattr(guarded, attribute, getattr(function, attribute))
    return guarded
