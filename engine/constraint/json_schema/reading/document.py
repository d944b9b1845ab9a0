"""A schema as it was sent: typed reads of its keywords, and errors that name the place."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

from engine.constraint.json_schema.reading.limits import Limits
from engine.constraint.json_schema.shapes.types import Shape
from engine.errors import ConfigError
from engine.exact_json import number


class Document(ABC):
    """lenient: what cannot be enforced is left out, and named in `ignored`."""

    def __init__(self, document: Mapping[str, Any], *, lenient: bool) -> None:
        self.ignored: dict[str, None] = {}
        self._document = document
        self._lenient = lenient
        self._limits = Limits()
        self._path: list[str] = []
        self._anchors: dict[str, Any] | None = None

    @abstractmethod
    def _schema(self, node: Any) -> Shape:
        """The shape of a schema."""

    def _under(self, keyword: str, name: str | int | None, child: Any) -> Shape:
        with self._at(keyword, *(() if name is None else (str(name),))):
            return self._schema(child)

    @contextmanager
    def _at(self, *names: str) -> Iterator[None]:
        self._path += [".".join(names)]
        yield
        self._path.pop()

    def _list(self, node: Mapping[str, Any], name: str) -> list[Any]:
        value = node[name]
        if not isinstance(value, list) or not value:
            raise self._wrong(f"{name} must be a list of schemas, at least one")
        return value

    def _map(self, node: Mapping[str, Any], name: str) -> dict[str, Any]:
        value = node.get(name, {})
        if not isinstance(value, dict):
            raise self._wrong(f"{name} must be an object")
        return value

    def _count(self, node: Mapping[str, Any], name: str) -> int | None:
        if name not in node:
            return None
        value = number(node[name])
        if value is None or value < 0 or value != value.to_integral_value() or value >= 2**31:
            raise self._wrong(f"{name} must be an integer from 0 to {2**31 - 1}")
        return int(value)

    def _numeric(self, node: Mapping[str, Any], name: str) -> Decimal | None:
        if name not in node:
            return None
        value = number(node[name])
        if value is None:
            raise self._wrong(f"{name} must be a number")
        if value.adjusted() > 400 or int(value.as_tuple().exponent) < -400:
            raise self._wrong(f"{name}: numbers of more than 400 digits are not supported")
        return value

    def _text(self, node: Mapping[str, Any], name: str) -> str:
        value = node[name]
        if not isinstance(value, str):
            raise self._wrong(f"{name} must be a string")
        return value

    def _target(self, key: str) -> Any:
        if key and not key.startswith("/"):
            target = self._find_anchor(key)
            if target is None:
                raise self._wrong(f"$ref: there is no {('#' + key)[:80]!r} in the schema")
            return target
        node: Any = self._document
        for part in key.split("/")[1:]:
            part = part.replace("~1", "/").replace("~0", "~")
            if isinstance(node, dict) and part in node:
                node = node[part]
            elif isinstance(node, list) and part.isdigit() and int(part) < len(node):
                node = node[int(part)]
            else:
                raise self._wrong(f"$ref: there is no {('#' + key)[:80]!r} in the schema")
        return node

    def _find_anchor(self, name: str) -> Any:
        """The schema with an `$anchor` or `$id` of this name."""
        if self._anchors is None:
            self._anchors = {}
            todo: list[Any] = [self._document]
            while todo:
                node = todo.pop()
                if isinstance(node, dict):
                    for key in ("$anchor", "$id", "id"):
                        if isinstance(node.get(key), str):
                            self._anchors.setdefault(node[key].removeprefix("#"), node)
                    todo += node.values()
                elif isinstance(node, list):
                    todo += node
        return self._anchors.get(name)

    def _refuse(self, keyword: str, which: str = "") -> None:
        if not self._lenient:
            raise self._wrong(f"{keyword}{' ' if which else ''}{which} is not supported")
        self.ignored[keyword] = None

    def _wrong(self, what: str) -> ConfigError:
        return ConfigError(self._where() + what)

    def _where(self) -> str:
        """What an error begins with."""
        where = ".".join(self._path)
        if len(where) > 120:
            where = "…" + where[-119:]
        return where and where + ": "
