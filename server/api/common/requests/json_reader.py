"""Typed reads of objects that a schema cannot describe well, with errors that name the field."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from engine import exact_json
from server.errors import ApiError, missing, unsupported, wrong
from server.generation.request_context import RequestContext

_NONE: frozenset[str] = frozenset()


class Fields:
    """One JSON object of a request. `path` names it in errors: "input[3].content[0]"."""

    def __init__(self, value: Any, path: str, context: RequestContext) -> None:
        if not isinstance(value, dict):
            raise wrong(path, "must be an object")
        self.value: dict[str, Any] = value
        self.path, self.context = path, context

    def at(self, name: str) -> str:
        return f"{self.path}.{name}"

    def get(self, name: str) -> Any:
        """Null is the same as absent."""
        return self.value.get(name)

    def text(self, name: str) -> str:
        """A string that must be there."""
        value = self.get(name)
        if value is None:
            raise missing(self.at(name))
        if not isinstance(value, str):
            raise wrong(self.at(name), "must be a string")
        return value

    def text_or(self, name: str, default: str) -> str:
        return default if self.get(name) is None else self.text(name)

    def one_of(self, name: str, known: Sequence[str], default: str | None = None) -> str:
        """A string out of a few."""
        value = self.get(name)
        if value is None:
            if default is None:
                raise missing(self.at(name))
            return default
        if not isinstance(value, str) or value not in known:
            instead = f", not {value[:64]!r}" if isinstance(value, str) else ""
            raise wrong(self.at(name), f"must be one of {', '.join(known)}{instead}")
        return value

    def flag(self, name: str) -> bool:
        value = self.get(name)
        if value is not None and not isinstance(value, bool):
            raise wrong(self.at(name), "must be true or false")
        return bool(value)

    def count(self, name: str, least: int) -> int:
        """An integer that must be there."""
        value = self.get(name)
        if value is None:
            raise missing(self.at(name))
        if type(value) is not int or not least <= value < 2**31:
            raise wrong(self.at(name), f"must be an integer from {least} to {2**31 - 1}")
        return value

    def object(self, name: str) -> dict[str, Any]:
        """An object that must be there."""
        value = self.get(name)
        if value is None:
            raise missing(self.at(name))
        if not isinstance(value, dict):
            raise wrong(self.at(name), "must be an object")
        return value

    def texts(self, name: str) -> list[str]:
        """A list of strings, at least one."""
        value = self.get(name)
        if value is None:
            raise missing(self.at(name))
        if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
            raise wrong(self.at(name), "must be a list of strings, at least one")
        return value

    def objects(self, name: str) -> Iterator[Fields]:
        """A list of objects, or nothing."""
        return objects(self.get(name), self.at(name), self.context)

    def only(self, known: frozenset[str], idle: frozenset[str] = _NONE) -> None:
        """Warn of the fields beyond `known`, except `idle` ones, which never change anything."""
        for name, value in self.value.items():
            if name not in known and name not in idle and value is not None:
                self.context.warn(f"{self.at(name[:64])} has no effect")


def objects(value: Any, path: str, context: RequestContext) -> Iterator[Fields]:
    """The objects of a list. None: there are none."""
    if value is None:
        return
    if not isinstance(value, list):
        raise wrong(path, "must be a list")
    for i, item in enumerate(value):
        yield Fields(item, f"{path}[{i}]", context)


def json_text(value: Any, path: str) -> str:
    """As JSON, if it is not nested too deeply for that."""
    try:
        return exact_json.write(value, ensure_ascii=False)
    except (RecursionError, ValueError):
        raise wrong(path, "is nested too deeply, or has numbers that are too long") from None


def no_media(path: str, kind: str) -> ApiError:
    """Parts that are no text. The words are llama-server's."""
    known = next((name for name in ("image", "audio", "video") if name in kind), None)
    name = f"{known} input" if known else f"a part of type {kind[:64]!r}"
    return unsupported(path, f"{name} is not supported by this model; send text")
