"""Parses GBNF, llama.cpp's grammar notation.

The syntax is that of llama.cpp: characters, classes, groups, repetitions, `<token>`, `<[id]>` and their
negations. Left recursion is refused, as there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from engine.errors import ConfigError

MAX_RULES = 5000
MAX_NODES = 50_000
MAX_DEPTH = 100
MAX_REPETITION = 1_000_000

TokenId = Callable[[str], int | None]  # the token with that spelling, if there is one


@dataclass(frozen=True, slots=True)
class Text:
    """A literal text."""

    text: str


@dataclass(frozen=True, slots=True)
class Chars:
    """One character of these ranges (both ends included), or none of them."""

    ranges: tuple[tuple[int, int], ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class TokenRef:
    """One token by its id; negated: any other."""

    id: int
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Ref:
    rule: str


@dataclass(frozen=True, slots=True)
class Seq:
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Alt:
    options: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """`node` from `least` to `most` times; None: without end."""

    node: Node
    least: int
    most: int | None


Node = Text | Chars | TokenRef | Ref | Seq | Alt | Repeat
Rules = dict[str, Node]

_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
_DIGITS = frozenset("0123456789")
_HEX = frozenset("0123456789abcdefABCDEF")
_ESCAPES = {"t": "\t", "r": "\r", "n": "\n", "\\": "\\", '"': '"', "[": "[", "]": "]", "-": "-"}
_HEX_DIGITS = {"x": 2, "u": 4, "U": 8}


def parse(text: str, token_id: TokenId) -> Rules:
    """Rules by name; every name that is used is defined, and so is `root`. Raises ConfigError."""
    rules = _Parser(text, token_id).rules()
    if "root" not in rules:
        raise ConfigError("the grammar has no rule 'root'")
    for node in rules.values():
        for part in walk(node):
            if isinstance(part, Ref) and part.rule not in rules:
                raise ConfigError(f"the rule '{part.rule[:64]}' is not defined")
    _refuse_left_recursion(rules)
    return rules


def walk(node: Node) -> Iterator[Node]:
    """A node and all its descendants, without following references."""
    todo = [node]
    while todo:
        node = todo.pop()
        yield node
        todo.extend(children(node))


def children(node: Node) -> tuple[Node, ...]:
    match node:
        case Seq(items):
            return items
        case Alt(options):
            return options
        case Repeat(inner):
            return (inner,)
    return ()


def nullable_rules(rules: Rules) -> set[str]:
    """Names of the rules that match the empty text."""
    names: set[str] = set()
    grown = True
    while grown:
        new = {name for name, node in rules.items() if name not in names and nullable(node, names)}
        names |= new
        grown = bool(new)
    return names


def nullable(node: Node, nullable_rules: set[str]) -> bool:
    match node:
        case Text(text):
            return not text
        case Ref(rule):
            return rule in nullable_rules
        case Seq(items):
            return all(nullable(item, nullable_rules) for item in items)
        case Alt(options):
            return any(nullable(option, nullable_rules) for option in options)
        case Repeat(inner, least):
            return least == 0 or nullable(inner, nullable_rules)
    return False


def _refuse_left_recursion(rules: Rules) -> None:
    empty = nullable_rules(rules)
    begins = {name: set(_leftmost(node, empty)) for name, node in rules.items()}
    done: set[str] = set()
    for name in rules:
        path = [(name, iter(begins[name]))]
        on_path = {name}
        while path:
            current, left = path[-1]
            following = next((rule for rule in left if rule not in done), None)
            if following is None:
                path.pop()
                on_path.discard(current)
                done.add(current)
            elif following in on_path:
                raise ConfigError(f"the rule '{following[:64]}' is left-recursive")
            else:
                path.append((following, iter(begins[following])))
                on_path.add(following)


def _leftmost(node: Node, empty: set[str]) -> Iterator[str]:
    """Rules with which a text of the node may begin."""
    match node:
        case Ref(rule):
            yield rule
        case Seq(items):
            for item in items:
                yield from _leftmost(item, empty)
                if not nullable(item, empty):
                    return
        case Alt(options):
            for option in options:
                yield from _leftmost(option, empty)
        case Repeat(inner):
            yield from _leftmost(inner, empty)


class _Parser:
    def __init__(self, text: str, token_id: TokenId) -> None:
        self._text = text + "\0"  # a sentinel, so that looking ahead needs no check for the end
        self._end = len(text)
        self._pos = 0
        self._nodes = 0
        self._token_id = token_id

    def rules(self) -> Rules:
        rules: Rules = {}
        self._skip(newlines=True)
        while self._pos < self._end:
            name = self._name()
            self._skip(newlines=False)
            if not self._text.startswith("::=", self._pos):
                raise self._error("expected '::='")
            self._pos += 3
            self._skip(newlines=True)
            rules[name] = self._alternatives(0)  # the last definition counts, as in llama.cpp
            if len(rules) > MAX_RULES:
                raise ConfigError(f"the grammar has more than {MAX_RULES} rules")
            if self._pos < self._end and self._text[self._pos] not in "\r\n":
                raise self._error("expected a new line or the end")
            self._skip(newlines=True)
        return rules

    def _error(self, what: str) -> ConfigError:
        line = self._text.count("\n", 0, self._pos) + 1
        start = self._text.rfind("\n", 0, self._pos) + 1
        near = self._text[self._pos : min(self._end, self._pos + 16)].split("\n")[0]
        return ConfigError(f"line {line}, column {self._pos - start + 1}: {what} (at {near!r})")

    def _count(self, node: Node) -> Node:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise ConfigError(f"the grammar has more than {MAX_NODES} symbols")
        return node

    def _skip(self, *, newlines: bool) -> None:
        text, pos = self._text, self._pos
        blank = " \t\r\n" if newlines else " \t"
        while pos < self._end:
            if text[pos] == "#":
                while pos < self._end and text[pos] not in "\r\n":
                    pos += 1
            elif text[pos] in blank:
                pos += 1
            else:
                break
        self._pos = pos

    def _name(self) -> str:
        start = self._pos
        while self._text[self._pos] in _NAME:
            self._pos += 1
        if self._pos == start:
            raise self._error("expected the name of a rule")
        return self._text[start : self._pos]

    def _alternatives(self, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise self._error(f"groups are nested deeper than {MAX_DEPTH}")
        options = [self._sequence(depth)]
        while self._text[self._pos] == "|":
            self._pos += 1
            self._skip(newlines=True)
            options.append(self._sequence(depth))
        return options[0] if len(options) == 1 else self._count(Alt(tuple(options)))

    def _sequence(self, depth: int) -> Node:
        items: list[Node] = []
        nested = depth > 0
        while True:
            match self._text[self._pos]:
                case '"':
                    items.append(self._count(self._literal()))
                case "[":
                    items.append(self._count(self._chars()))
                case "<" | "!":
                    items.append(self._count(self._token()))
                case ".":
                    self._pos += 1
                    items.append(self._count(Chars((), negated=True)))
                case "(":
                    self._pos += 1
                    self._skip(newlines=True)
                    items.append(self._alternatives(depth + 1))
                    if self._text[self._pos] != ")":
                        raise self._error("expected ')'")
                    self._pos += 1
                case "*" | "+" | "?" | "{":
                    if not items:
                        raise self._error("there is nothing to repeat before it")
                    least, most = self._bounds(nested)
                    items[-1] = self._count(Repeat(items[-1], least, most) if most != 0 else Text(""))
                case c if c in _NAME:
                    items.append(self._count(Ref(self._name())))
                case _:
                    break
            self._skip(newlines=nested)
        return items[0] if len(items) == 1 else self._count(Seq(tuple(items)))

    def _literal(self) -> Text:
        self._pos += 1
        characters: list[str] = []
        while self._text[self._pos] != '"' or self._pos >= self._end:
            characters.append(chr(self._char()))
        self._pos += 1
        return Text("".join(characters))

    def _chars(self) -> Chars:
        self._pos += 1
        negated = self._text[self._pos] == "^"
        if negated:
            self._pos += 1
        ranges: list[tuple[int, int]] = []
        while self._text[self._pos] != "]":
            low = high = self._char()
            if self._text[self._pos] == "-" and self._text[self._pos + 1] != "]":
                self._pos += 1
                high = self._char()
            if high < low:
                raise self._error("a range ends before it begins")
            ranges.append((low, high))
        self._pos += 1
        if not ranges and not negated:
            raise self._error("the character class is empty")
        return Chars(tuple(ranges), negated)

    def _char(self) -> int:
        """One character of a literal or a class, as a code point."""
        if self._pos >= self._end:
            raise self._error("unexpected end of the grammar")
        c = self._text[self._pos]
        if c != "\\":
            self._pos += 1
            return self._scalar(ord(c))
        kind = self._text[self._pos + 1]
        n = _HEX_DIGITS.get(kind)
        if n is not None:
            digits = self._text[self._pos + 2 : self._pos + 2 + n]
            if len(digits) < n or not _HEX.issuperset(digits):
                raise self._error(f"expected {n} hexadecimal digits")
            self._pos += 2 + n
            return self._scalar(int(digits, 16))
        if kind not in _ESCAPES:
            raise self._error("unknown escape sequence")
        self._pos += 2
        return ord(_ESCAPES[kind])

    def _scalar(self, point: int) -> int:
        if point > 0x10FFFF or 0xD800 <= point <= 0xDFFF:
            raise self._error(f"U+{point:04X} is not a character")
        return point

    def _token(self) -> TokenRef:
        negated = self._text[self._pos] == "!"
        if negated:
            self._pos += 1
            if self._text[self._pos] != "<":
                raise self._error("expected a token")
        end = self._text.find(">", self._pos)
        if end < 0:
            raise self._error("a token must end with '>'")
        spelled = self._text[self._pos : end + 1]
        digits = spelled[2:-2]
        if spelled.startswith("<[") and spelled.endswith("]>") and digits and _DIGITS.issuperset(digits):
            token = int(digits[:10])
            if len(digits) > 10 or token >= 2**31:
                raise self._error("the token id is out of range")
        else:
            token_or_none = self._token_id(spelled)
            if token_or_none is None:
                raise self._error("the vocabulary has no such token")
            token = token_or_none
        self._pos = end + 1
        return TokenRef(token, negated)

    def _bounds(self, nested: bool) -> tuple[int, int | None]:
        c = self._text[self._pos]
        self._pos += 1
        if c != "{":
            return {"*": (0, None), "+": (1, None), "?": (0, 1)}[c]
        self._skip(newlines=nested)
        least = self._number()
        most: int | None = least
        self._skip(newlines=nested)
        if self._text[self._pos] == ",":
            self._pos += 1
            self._skip(newlines=nested)
            most = self._number() if self._text[self._pos] in _DIGITS else None
            self._skip(newlines=nested)
        if self._text[self._pos] != "}":
            raise self._error("expected '}'")
        if most is not None and most < least:
            raise self._error(f"{{{least},{most}}} is not a range")
        self._pos += 1
        return least, most

    def _number(self) -> int:
        start = self._pos
        while self._text[self._pos] in _DIGITS:
            self._pos += 1
        digits = self._text[start : self._pos]
        if not digits:
            raise self._error("expected a number")
        if len(digits) > 9 or int(digits) > MAX_REPETITION:
            raise self._error(f"more than {MAX_REPETITION} repetitions are not supported")
        return int(digits)
