"""Values in Python's syntax, which some templates show to models and some models write, as JSON."""

from __future__ import annotations

import json
import re

MAX_DEPTH = 64
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?")
_WORDS = {"True": "true", "False": "false", "None": "null", "true": "true", "false": "false", "null": "null"}
_WORD = re.compile("|".join(_WORDS))
_STRING = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
_ESCAPE = re.compile(
    r"\\(?:([abfnrtv'\"\\/])|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(\n))", re.DOTALL
)
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_SPACE = re.compile(r"\s*")


def python_as_json(text: str) -> str | None:
    """A complete value in JSON or Python syntax, as JSON with all digits of numbers. None: it is neither."""
    try:
        value, end = read_value(text, 0)
    except ValueError:
        return None
    return value if end == len(text) else None


def read_value(text: str, position: int, depth: int = 0) -> tuple[str, int]:
    """The value at a position, as JSON, and where it ends. Raises ValueError."""
    if depth > MAX_DEPTH:
        raise ValueError("nested too deeply")
    opening = text[position : position + 1]
    if opening in ("[", "("):
        return _read_items(text, position, depth)
    if opening == "{":
        return _read_pairs(text, position, depth)
    if (match := _STRING.match(text, position)) is not None:
        return json.dumps(unescape(match[0][1:-1]), ensure_ascii=False), match.end()
    if (match := _NUMBER.match(text, position)) is not None:
        return match[0], match.end()
    if (match := _WORD.match(text, position)) is not None:
        return _WORDS[match[0]], match.end()
    raise ValueError("no value")


def unescape(text: str) -> str:
    """The characters of a string literal without its quotes."""

    def character(match: re.Match[str]) -> str:
        simple, *codes, newline = match.groups()
        if newline:
            return ""
        if simple:
            return _ESCAPES.get(simple, simple)
        return chr(min(int(next(filter(None, codes)), 16), 0x10FFFF))

    text = _ESCAPE.sub(character, text)
    # JSON writes characters beyond 16 bits as pairs of surrogates.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _read_items(text: str, position: int, depth: int) -> tuple[str, int]:
    closing = {"[": "]", "(": ")"}[text[position]]
    items, position = [], _after_space(text, position + 1)
    while text[position : position + 1] != closing:
        item, position = read_value(text, position, depth + 1)
        items.append(item)
        position = _after_comma(text, position, closing)
    return f"[{', '.join(items)}]", position + 1


def _read_pairs(text: str, position: int, depth: int) -> tuple[str, int]:
    pairs, position = [], _after_space(text, position + 1)
    while text[position : position + 1] != "}":
        key, position = read_value(text, position, depth + 1)
        position = _after_space(text, position)
        if text[position : position + 1] != ":" or not key.startswith('"'):
            raise ValueError("no pair")
        value, position = read_value(text, _after_space(text, position + 1), depth + 1)
        pairs.append(f"{key}: {value}")
        position = _after_comma(text, position, "}")
    return f"{{{', '.join(pairs)}}}", position + 1


def _after_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    assert match is not None
    return match.end()


def _after_comma(text: str, position: int, closing: str) -> int:
    """Where the next item or the closing bracket begins."""
    position = _after_space(text, position)
    if text[position : position + 1] == ",":
        return _after_space(text, position + 1)
    if text[position : position + 1] != closing:
        raise ValueError("no comma")
    return position
