"""From shapes to a grammar in llguidance's dialect of Lark.

Every shape of objects or arrays becomes a rule, every scalar a terminal. Only strings with formats, or
patterns without look-ahead, are left to llguidance's own `%json`, which knows how regular expressions look
behind JSON's escapes, and so are multiples.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from engine.constraint.json_schema.shapes import names
from engine.constraint.json_schema.shapes.constants import constants, merged
from engine.constraint.json_schema.shapes.lookahead import CHARACTER
from engine.constraint.json_schema.shapes.meet import Meets
from engine.constraint.json_schema.shapes.types import (
    ANYTHING,
    AnyOf,
    Anything,
    Array,
    Boolean,
    Nothing,
    Null,
    Number,
    Object,
    Reference,
    Shape,
    String,
)
from engine.constraint.json_schema.writing.fruitful import Fruitful
from engine.constraint.json_schema.writing.scalars import (
    FREE_NAME,
    LIMITED_NAME,
    number_terminal,
    quoted,
    regex,
    string_terminal,
    terminal_matches,
)
from engine.constraint.json_schema.writing.spacing import Spacing
from engine.errors import ConfigError

MAX_STATES = 20_000  # of all objects whose properties are counted
_INLINE = 16  # optional properties in a row of one rule
_PLAIN_KEY = r'"[^"\\\x00-\x1F\x7F]*"'


class _Fields(NamedTuple):
    """The properties of an object in their order: (key and value in Lark, whether it is required).

    rest: one property of another name, in Lark; empty: there is none. limited: all its names have an end.
    """

    listed: list[tuple[str, bool]]
    rest: str
    limited: bool = False


class Writer:
    """Writes one grammar. Names that the schema does not list get terminals that say so."""

    def __init__(
        self, meets: Meets, spacing: Spacing, *, closed: bool, lenient: bool, ignored: dict[str, None]
    ) -> None:
        self._meets, self._lenient = meets, lenient
        self._ignored = ignored
        self._space = spacing
        self._lines: list[str] = []
        self._rules: dict[Shape, str] = {}
        self._todo: list[tuple[str, Shape]] = []
        self._terminals: dict[tuple[str, str], str] = {}
        self._fruitful = Fruitful(meets, closed=closed)
        self._states = 0

    def text(self, root: Shape) -> str:
        """The grammar, or an expression that needs none. Raises ConfigError if nothing matches."""
        self._fruitful.look_at(root)
        if not self._fruitful.can_match(root):
            shape = self._meets.resolved(root)
            raise ConfigError(
                f"nothing matches it{': ' + shape.reason if isinstance(shape, Nothing) else ''}"
            )
        start = self._value(root)
        while self._todo:
            name, shape = self._todo.pop()
            self._lines.append(f"{name}: {self._compound(shape)}")
        if start.startswith("%json ") and not self._lines:
            return start
        terminals = [f"{name}: {text}" for (_, text), name in self._terminals.items()]
        return "%lark {\n" + "\n".join([f"start: {start}", *self._lines, *terminals]) + "\n}"

    # ** values **

    def _value(self, shape: Shape) -> str:
        """What matches a shape, as an item of a rule. Something must match it."""
        match shape:
            case Reference():
                target = self._fruitful.target(shape)
                return (
                    self._rule(shape) if isinstance(target, AnyOf | Object | Array) else self._value(target)
                )
            case AnyOf(options):
                return self._alternatives(options)
            case Array() | Object() | Anything():
                return self._rule(shape)
        terminal = self._scalar(shape)
        return terminal if terminal.startswith("%json") else self._terminal(terminal)

    def _alternatives(self, options: Sequence[Shape]) -> str:
        matching = [option for option in options if self._fruitful.can_match(option)]
        whole = merged([o for o in matching if isinstance(o, String | Number) and o.values is not None])
        constants = (
            whole.options if isinstance(whole, AnyOf) else () if isinstance(whole, Nothing) else (whole,)
        )
        rest = [o for o in matching if not (isinstance(o, String | Number) and o.values is not None)]
        scalars: list[str] = []
        others: list[str] = []
        for option in [*constants, *rest]:
            scalar = isinstance(option, Null | Boolean | Number | String)
            text = self._scalar(option) if scalar else self._value(option)
            (scalars if scalar and not text.startswith("%json") else others).append(text)
        if scalars:
            others.append(self._terminal(" | ".join(scalars)))
        return others[0] if len(others) == 1 else f"({' | '.join(dict.fromkeys(others))})"

    def _rule(self, shape: Shape) -> str:
        name = self._rules.get(shape)
        if name is None:
            name = self._rules[shape] = f"r{len(self._rules)}"
            self._todo.append((name, shape))
        return name

    def _terminal(self, text: str, prefix: str = "T") -> str:
        return self._terminals.setdefault((prefix, text), f"{prefix}{len(self._terminals)}")

    def _compound(self, shape: Shape) -> str:
        match shape:
            case Reference():
                return self._compound(self._fruitful.target(shape))
            case AnyOf(options):
                return self._alternatives(options)
            case Array():
                return self._array(shape)
            case Object():
                return self._object(shape)
        return self._alternatives((Null(), Boolean(), Number(), String(), Array(), Object()))

    def _scalar(self, shape: Shape) -> str:
        """A terminal's text, or a `%json`."""
        match shape:
            case Null():
                return '"null"'
            case Boolean(None):
                return '"true" | "false"'
            case Boolean(value):
                return '"true"' if value else '"false"'
            case Number():
                return number_terminal(shape)
            case String():
                return string_terminal(shape)
        raise AssertionError(shape)

    # ** arrays **

    def _array(self, shape: Array) -> str:
        if shape.distinct and shape.most != 1:
            tuples = self._distinct(shape)
            if tuples is not None:
                return tuples
        n = len(shape.prefix)
        for i, item in enumerate(shape.prefix):
            if not self._fruitful.can_match(item):
                n = i
                break
        most = shape.most
        item = shape.items or ANYTHING
        if n < len(shape.prefix) or not self._fruitful.can_match(item):
            most = n if most is None else min(most, n)
        comma = self._terminal(regex(self._space.comma))
        behind = self._tail(shape, n, most, comma) if most is None or most > n else ""
        for i in reversed(range(min(n, n if most is None else most))):
            text = f"{comma if i else ''} {self._value(shape.prefix[i])} {behind}"
            behind = self._named(f"({text}){'' if i < shape.least else '?'}") if i else text
        return self._bracketed("[", "]", behind, shape.least == 0 or most == 0, most == 0)

    def _tail(self, shape: Array, n: int, most: int | None, comma: str) -> str:
        """The items behind a prefix of `n`."""
        item = self._value(shape.items or ANYTHING)
        if n:
            return _times(f"{comma} {item}", max(0, shape.least - n), None if most is None else most - n)
        return (
            f"{item} {_times(f'{comma} {item}', max(0, shape.least - 1), None if most is None else most - 1)}"
        )

    def _distinct(self, shape: Array) -> str | None:
        """Items that are constants, each at most once, in the order of the schema. None: ignored."""
        values = constants(self._meets.resolved(shape.items or ANYTHING))
        if values is not None and not shape.prefix and len(values) <= 100:
            if shape.least > len(values):
                raise ConfigError(f"{shape.where}uniqueItems: there are too few values")
            items = _Fields([(self._value(value), False) for value in values], "")
            return self._counted("[", "]", items, shape.least, shape.most)
        if not self._lenient:
            raise ConfigError(f"{shape.where}uniqueItems is supported only for items from an enum")
        self._ignored["uniqueItems"] = None
        return None

    # ** objects **

    def _object(self, shape: Object) -> str:
        fields = self._fields(shape)
        if fields.limited:
            cap = len(fields.listed) + names.MAX_NAMES
            if shape.least > cap:
                raise ConfigError(
                    f"minProperties: more than {cap} names that match a pattern are not supported"
                )
            shape = replace(shape, most=cap if shape.most is None else min(shape.most, cap))
        required = sum(needed for _, needed in fields.listed)
        optional = len(fields.listed) - required
        least = max(0, shape.least - required)
        most = None if shape.most is None else shape.most - required
        if most is not None and not fields.rest and most >= optional:
            most = None
        if optional and (least or most is not None):
            return self._counted("{", "}", fields, shape.least, shape.most)
        comma = self._terminal(regex(self._space.comma))
        rest = fields.rest if most != 0 else ""
        after = _times(f"{comma} {rest}", least, most) if rest else ""
        behind = [after]  # what may follow when the first so many fields are through
        for i in reversed(range(1, len(fields.listed))):
            text, needed = fields.listed[i]
            one = f"{comma} {text}"
            joined = f"{one if needed else f'({one})?'} {behind[0]}"
            behind.insert(0, self._named(joined) if i % _INLINE == 0 else joined)
        options = []
        for i, (text, needed) in enumerate(fields.listed):
            options.append(f"{text} {self._named(behind[i])}")
            if needed:
                break
        else:
            if rest:
                fewer = None if most is None else most - 1
                options.append(f"{rest} {_times(f'{comma} {rest}', max(0, least - 1), fewer)}")
        empty = not required and not least
        return self._bracketed("{", "}", " | ".join(options), empty, not options)

    def _fields(self, shape: Object) -> _Fields:
        colon = self._terminal(regex(self._space.colon))
        names_listed = list(dict.fromkeys((*(name for name, _ in shape.properties), *shape.required)))
        listed = []
        for name in names_listed:
            value = self._meets.property(shape, name)
            if self._fruitful.can_match(value):
                key = json.dumps(quoted(name), ensure_ascii=False)
                listed.append((f"{key} {colon} {self._value(value)}", name in shape.required))
        members = self._free(shape, names_listed)
        free = [f"{key} {colon} {self._value(value)}" for key, value in members]
        rest = free[0] if len(free) == 1 else f"({' | '.join(free)})" if free else ""
        return _Fields(listed, rest, bool(free) and all(key.startswith(LIMITED_NAME) for key, _ in members))

    def _free(self, shape: Object, listed: list[str]) -> list[tuple[str, Shape]]:
        """Terminals of names that are not listed, and what may be under them."""
        literals = " | ".join(json.dumps(quoted(name), ensure_ascii=False) for name in listed)
        not_listed = f" & ~({literals})" if listed else ""
        members, groups = [], self._pattern_groups(shape)
        keys = [f'(/"/ /{_escaped("|".join(map(names.key_regex, group)))}/ /"/)' for group, _ in groups]
        for key, (group, value) in zip(keys, groups, strict=True):
            text = f"{regex(_PLAIN_KEY)} & {key}{not_listed}"
            if self._fruitful.can_match(value) and terminal_matches(text):
                endless = all(map(names.endless, group))
                prefix = FREE_NAME if endless else f"{LIMITED_NAME}{len(listed) + names.MAX_NAMES}_"
                members.append((self._terminal(text, prefix), value))
        other = Nothing() if self._fruitful.is_closed(shape) else shape.additional or ANYTHING
        text = " & ".join([regex(f'"({CHARACTER})*"'), *(f"~{key}" for key in keys)]) + not_listed
        if self._fruitful.can_match(other) and (not keys or terminal_matches(text)):
            members.append((self._terminal(text, FREE_NAME), other))
        return members

    @staticmethod
    def _pattern_groups(shape: Object) -> list[tuple[list[str], Shape]]:
        """Patterns together that allow the same; no name matches patterns of two groups."""
        groups: dict[Shape, list[str]] = {}
        for pattern, value in shape.patterns:
            for other, patterns in groups.items():
                for known in patterns if other != value else ():
                    if names.overlap(known, pattern):
                        raise ConfigError(
                            f"patternProperties: {known[:48]!r} and {pattern[:48]!r} may match the same "
                            "name, which is not supported"
                        )
            groups.setdefault(value, []).append(pattern)
        return [(patterns, value) for value, patterns in groups.items()]

    # ** brackets **

    def _bracketed(
        self, opening: str, closing: str, inside: str, may_be_empty: bool, only_empty: bool
    ) -> str:
        empty = json.dumps(opening + closing)
        if only_empty:
            return empty
        first = self._terminal(regex("\\" + opening + self._space.opened))
        last = self._terminal(regex(self._space.closing + "\\" + closing))
        return f"{first} ({inside}) {last}" + (f" | {empty}" if may_be_empty else "")

    def _counted(self, opening: str, closing: str, fields: _Fields, least: int, most: int | None) -> str:
        """Fields of which at least and at most so many are there: a rule for each place and number."""
        comma = self._terminal(regex(self._space.comma))
        known: dict[tuple[int, int], str | None] = {}
        n = len(fields.listed)
        top = max(least, 1) if most is None else most

        def tail(i: int, count: int) -> str | None:
            """What may follow from field `i` on when `count` are there; None: nothing can."""
            if (i, count) not in known:
                self._states += 1
                if self._states > MAX_STATES:
                    raise ConfigError(
                        f"minProperties and maxProperties of {n} optional properties are too complex"
                    )
                text = rest(count) if i == n else step(i, count)
                known[i, count] = None if text is None else self._named(text) if text.strip() else '""'
            return known[i, count]

        def step(i: int, count: int) -> str | None:
            text, needed = fields.listed[i]
            following = (
                None
                if most is not None and count >= most
                else tail(i + 1, min(count + 1, top) if most is None else count + 1)
            )
            options = [] if following is None else [f"{comma if count else ''} {text} {following}"]
            skipped = None if needed else tail(i + 1, count)
            options += [] if skipped is None else [skipped]
            return " | ".join(options) if options else None

        def rest(count: int) -> str | None:
            low, high = max(0, least - count), None if most is None else most - count
            if not fields.rest:
                return None if low else ""
            if count:
                return _times(f"{comma} {fields.rest}", low, high)
            if high == 0:
                return ""
            more = _times(f"{comma} {fields.rest}", max(0, low - 1), None if high is None else high - 1)
            some = f"{fields.rest} {more}"
            return some if low else f"({some})?"

        for i in reversed(range(n + 1)):  # so that no call goes deep
            for count in range(min(i, top) + 1):
                if count or i == n or least == 0:
                    tail(i, count)
        inside = tail(0, 0)
        if inside is None:
            raise ConfigError(f"at least {least} properties are more than there can be")
        first = self._terminal(regex("\\" + opening + self._space.opened))
        last = self._terminal(regex(self._space.closing + "\\" + closing))
        return f"{first} {inside} {last}"

    def _named(self, text: str) -> str:
        """A rule of its own for what would be written several times."""
        if not text.strip():
            return ""
        if len(text) < 40:
            return f"({text})"
        name = f"s{len(self._lines)}"
        self._lines.append(f"{name}: {text}")
        return name


def _times(item: str, least: int, most: int | None) -> str:
    if most == 0:
        return ""
    if most is None:
        return f"({item})" + {0: "*", 1: "+"}.get(least, f"{{{least},}}")
    return f"({item})" + ("?" if (least, most) == (0, 1) else f"{{{least},{most}}}")


@lru_cache(1024)
def _escaped(pattern: str) -> str:
    """A pattern of JSON Schema between slashes: `\\d` and `\\w` are ASCII."""
    from llguidance import regex_to_lark

    return regex_to_lark(names.rust(pattern), "dw")
