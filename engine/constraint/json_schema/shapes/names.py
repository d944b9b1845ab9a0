"""Patterns of strings and property names: what of them is supported, and as lists of names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import lru_cache
from re import _constants as ops  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

from engine.constraint.json_schema.shapes import lookahead
from engine.errors import ConfigError

MAX_NAMES = 64  # of a pattern that are listed one by one
_ANY = "(?s:.)*"
_AROUND = frozenset((ops.AT, ops.ASSERT, ops.ASSERT_NOT, ops.GROUPREF))
_DIFFERENCE = re.compile(r"\[[^\]]*--")
_REASON = re.compile(r"^error: (.*)$", re.MULTILINE)
_NAMED = re.compile(r"\(\?<(?![=!])")


@lru_cache(1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(_python(pattern), re.ASCII)


def shown(pattern: str) -> str:
    """A pattern in an error message."""
    return repr(pattern if len(pattern) <= 64 else pattern[:63] + "…")


@lru_cache(1024)
def fault(pattern: str) -> str:
    """Why no string can be held to a pattern; empty: it can."""
    reason = regex_fault(pattern)
    if not reason.startswith(("look-around", "\\b")):
        return reason
    from llguidance import LLMatcher

    try:
        language = lookahead.content(rust(pattern))
    except ConfigError as error:
        return str(error)
    if language and LLMatcher.validate_grammar(f"start: X\nX: {language}"):
        return "it is not valid with look-ahead, which is not supported"
    return ""


@lru_cache(1024)
def regex_fault(pattern: str) -> str:
    """Why a pattern is no regular expression as llguidance has them; empty: it is one."""
    from llguidance import LLMatcher

    try:
        pattern.encode()
    except UnicodeEncodeError:
        return "it has unpaired surrogates"
    if _DIFFERENCE.search(pattern):
        return "-- inside of a class is not supported"
    error = LLMatcher.validate_grammar(
        f"start: %json {json.dumps({'type': 'string', 'pattern': rust(pattern)})}"
    )
    reason = _REASON.search(error)
    if reason is not None:
        return reason[1]
    return r"\b, and ^ or $ inside of it, are not supported" if "lookarounds not supported" in error else ""


@lru_cache(1024)
def text_fault(pattern: str) -> str:
    """Why `matches` cannot be asked about a pattern; empty: it can."""
    try:
        _compiled(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        return str(error)
    return ""


@lru_cache(1024)
def key_fault(pattern: str) -> str:
    """Why no name can be held to a pattern; empty: it can."""
    reason = regex_fault(pattern) or text_fault(pattern)
    if not reason:
        try:
            key_regex(pattern)
        except ConfigError as error:
            reason = str(error)
    return reason


def rust(pattern: str) -> str:
    """A pattern of ECMA-262 as llguidance reads it: classes are not nested there, nor intersected."""
    out, inside = [], False
    for part in re.findall(r"\\.|\[\^?\]?|.", pattern, re.DOTALL):
        if inside:
            inside = part != "]"
            out.append("\\" + part if part[0] in "[&~" else part)
        else:
            inside = part[0] == "["
            out.append(part)
    return "".join(out)


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern is found in a text, as JSON Schema has it."""
    reason = text_fault(pattern)
    if reason:
        raise ConfigError(f"the pattern {shown(pattern)} cannot be enforced: {reason}")
    return _compiled(pattern).search(name) is not None


@lru_cache(1024)
def overlap(one: str, other: str) -> bool:
    """Whether a name may match both patterns."""
    from llguidance import LLMatcher

    both = json.dumps({"type": "string", "allOf": [{"pattern": rust(one)}, {"pattern": rust(other)}]})
    return "Unsatisfiable" not in LLMatcher.validate_grammar(f"start: %json {both}")


def key_regex(pattern: str) -> str:
    """What is between the quotes of a name that a pattern is found in.

    Raises ConfigError for anchors at other places than the ends of alternatives.
    """
    alternatives = []
    for part in _alternatives(pattern):
        start, body, end = _anchors(part)
        inner = None if start or end else _group(body)
        if inner is not None:
            alternatives.append(f"(?:{key_regex(inner)})")
            continue
        if any(op in _AROUND for op in _operations(_parsed(body))):
            raise ConfigError("look-around, and ^ or $ inside of it, are not supported")
        alternatives.append(("" if start else _ANY) + f"(?:{body})" + ("" if end else _ANY))
    return "|".join(alternatives)


def listed(pattern: str) -> list[str] | None:
    """All names that a pattern matches, if they are few."""
    texts: list[str] = []
    for part in _alternatives(pattern):
        start, body, end = _anchors(part)
        if not start or not end:
            return None
        names = _texts(_parsed(body))
        if names is None:
            return None
        texts += names
    return list(dict.fromkeys(texts)) if len(texts) <= MAX_NAMES else None


def endless(pattern: str) -> bool:
    """Whether every beginning of a name can go on in endlessly many ways."""
    for part in _alternatives(pattern):
        _, body, end = _anchors(part)
        if not end:
            continue
        items = list(_parsed(body))
        if not items or items[-1][0] is not ops.MAX_REPEAT or items[-1][1][1] is not ops.MAXREPEAT:
            return False
    return True


def _alternatives(pattern: str) -> list[str]:
    """A pattern cut at each `|` that is in no group and no class."""
    parts, depth, start, i, inside = [], 0, 0, 0, False
    while i < len(pattern):
        c = pattern[i]
        if c == "\\":
            i += 1
        elif inside:
            inside = c != "]"
        elif c == "[":
            inside = True
            i += pattern.startswith("^", i + 1)
            i += pattern.startswith("]", i + 1)
        elif c in "()":
            depth += 1 if c == "(" else -1
        elif c == "|" and not depth:
            parts.append(pattern[start:i])
            start = i + 1
        i += 1
    return [*parts, pattern[start:]]


def _group(part: str) -> str | None:
    """What is inside of the group that a part is as a whole."""
    if not part.startswith("(") or not part.endswith(")") or part.startswith(("(?=", "(?!", "(?<")):
        return None
    inner = part[3:-1] if part.startswith("(?:") else part[1:-1]
    items = list(_parsed(part))
    whole = len(items) == 1 and (items[0][0] is ops.SUBPATTERN or part.startswith("(?:"))
    try:
        return inner if whole and _parsed(inner) is not None else None
    except re.error:  # the first and the last parenthesis belong to different groups
        return None


def _anchors(part: str) -> tuple[bool, str, bool]:
    start = part.startswith("^")
    body = part[1:] if start else part
    end = body.endswith("$") and (len(body) - len(body[:-1].rstrip("\\")) - 1) % 2 == 0
    return start, body[:-1] if end else body, end


def _python(pattern: str) -> str:
    """A pattern of ECMA-262 as Python reads it; `$` is the very end there."""
    out, i, inside = [], 0, False
    while i < len(pattern):
        c = pattern[i]
        if c == "\\":
            two = pattern[i : i + 2]
            out.append({"\\/": "/", "\\-": "\\-", "\\Z": "Z", "\\z": "z"}.get(two, two))
            i += 1
        elif inside:
            inside = c != "]"
            out.append("\\" + c if c in "[&~|" else c)
        elif c == "[":
            inside = True
            out.append(c)
        elif c == "(" and _NAMED.match(pattern, i):
            out.append("(?P")
            i += 1
        else:
            out.append(r"\Z" if c == "$" else c)
        i += 1
    return "".join(out)


def _parsed(body: str) -> Any:
    return parser.parse(_python(body), re.ASCII)


def _operations(items: Any) -> Iterable[Any]:
    for op, value in items:
        yield op
        for inner in _inside(op, value):
            yield from _operations(inner)


def _inside(op: Any, value: Any) -> list[Any]:
    if op is ops.BRANCH:
        return list(value[1])
    if op is ops.SUBPATTERN:
        return [value[3]]
    if op in (ops.MAX_REPEAT, ops.MIN_REPEAT):
        return [value[2]]
    return []


def _texts(items: Any) -> list[str] | None:
    """The texts of a part of a pattern, if they are few."""
    texts = [""]
    for op, value in items:
        choices = _choices(op, value)
        if choices is None or len(choices) * len(texts) > MAX_NAMES:
            return None
        texts = [before + after for before in texts for after in choices]
    return texts


def _choices(op: Any, value: Any) -> list[str] | None:
    if op is ops.LITERAL:
        return [chr(value)]
    if op is ops.SUBPATTERN:
        return _texts(value[3])
    if op is ops.BRANCH:
        parts = [_texts(part) for part in value[1]]
        return None if None in parts else [text for part in parts for text in part or ()]
    if op is ops.MAX_REPEAT and value[1] is not ops.MAXREPEAT and value[1] <= 8:
        once = _texts(value[2])
        if once is None:
            return None
        texts: list[str] = []
        for n in range(value[0], value[1] + 1):
            times = [""]
            for _ in range(n):
                times = [before + after for before in times for after in once]
                if len(times) > MAX_NAMES:
                    return None
            texts += times
        return texts
    if op is ops.IN:
        return _characters(value)
    return None


def _characters(parts: Any) -> list[str] | None:
    texts: list[str] = []
    for op, value in parts:
        if op is ops.LITERAL:
            texts.append(chr(value))
        elif op is ops.RANGE and value[1] - value[0] < MAX_NAMES:
            texts += map(chr, range(value[0], value[1] + 1))
        elif op is ops.CATEGORY and value is ops.CATEGORY_DIGIT:
            texts += "0123456789"
        else:
            return None
    return texts
