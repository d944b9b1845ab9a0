"""Lark in llguidance's dialect: written from GBNF, and checked where a client wrote it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from engine.constraint import json_schema as schema
from engine.constraint.gbnf.lexemes import LexemeGrammar, cut
from engine.constraint.gbnf.parser import (
    Alt,
    Chars,
    Node,
    Ref,
    Repeat,
    Rules,
    Seq,
    Text,
    TokenId,
    TokenRef,
    parse,
    walk,
)
from engine.exact_json import read_float


def to_lark(text: str, token_id: TokenId) -> str:
    """A GBNF grammar as a Lark grammar that matches the same texts; the rule `root` becomes `start`.

    Raises ConfigError that names the line.
    """
    rules = parse(text, token_id)
    return _Writer(rules, cut(rules)).text()


# `%json` has no meaning in strings, regexes and comments.
_SKIPPED = r'"(?:\\.|[^"\\\n])*"|/(?:\\.|[^/\\\n])+/|//[^\n]*|\#[^\n]*'
_SCHEMA = re.compile(rf"(?:{_SKIPPED})|(%json\s*)(?=\{{|(?:true|false)\b)")
# llguidance reads a rule's temperature, and its matcher does not say it.
_TEMPERATURE = re.compile(rf"(?:{_SKIPPED})|\[(?:\"[^\"\n]*\"|[^\"\[\]/])*?\b(temperature)\s*=")
_decoder = json.JSONDecoder(parse_float=read_float)


def with_checked_schemas(text: str) -> schema.Rule:
    """A grammar with every schema behind `%json` checked as by `schema.rule`. Raises ConfigError."""
    parts: list[str] = []
    ignored: dict[str, None] = {}
    if any(match[1] for match in _TEMPERATURE.finditer(text)):
        ignored["the temperature of a rule"] = None
    end = 0
    for match in _SCHEMA.finditer(text):
        if match[1] is None or match.start() < end:
            continue
        try:
            value, after = _decoder.raw_decode(text, match.end())
        except (ValueError, RecursionError):
            continue  # llguidance says where
        rule = schema.rule(value)
        ignored |= dict.fromkeys(rule.ignored)
        parts += [text[end : match.start()], rule.text]
        end = after
    return schema.Rule("".join([*parts, text[end:]]), list(ignored))


class _Writer:
    """Rule n is written as `rn`, and as `Rn` inside of a terminal; lexeme n as `Ln`."""

    def __init__(self, rules: Rules, grammar: LexemeGrammar) -> None:
        self._rules, self._grammar = rules, grammar
        self._numbers = {name: i for i, name in enumerate(rules)}

    def text(self) -> str:
        grammar, lines = self._grammar, []
        for name, node in grammar.rules.items():
            left = "start" if name == "root" else f"r{self._numbers[name]}"
            lines.append(f"{left}: {self._rule(node)}")
        pending: list[str] = []
        for node, number in grammar.lexemes.items():
            if not isinstance(node, TokenRef):
                lines.append(f"L{number}: {self._terminal(node)}")
                pending += [part.rule for part in walk(node) if isinstance(part, Ref)]
        written: set[str] = set()
        while pending:
            name = pending.pop()
            if name not in written:
                written.add(name)
                node = self._rules[name]
                lines.append(f"R{self._numbers[name]}: {self._terminal(node)}")
                pending += [part.rule for part in walk(node) if isinstance(part, Ref)]
        return "\n".join(lines) + "\n"

    def _rule(self, node: Node) -> str:
        number = self._grammar.lexemes.get(node)
        if isinstance(node, TokenRef):
            return f"<[^{node.id}]>" if node.negated else f"<[{node.id}]>"
        if number is not None:
            return f"L{number}"
        if isinstance(node, Ref):
            return f"r{self._numbers[node.rule]}" if node.rule != "root" else "start"
        return self._compound(node, self._rule)

    def _terminal(self, node: Node) -> str:
        match node:
            case Text(text):
                return json.dumps(text)
            case Chars(ranges, negated):
                return _class(ranges, negated)
            case Ref(rule):
                return f"R{self._numbers[rule]}"
        return self._compound(node, self._terminal)

    @staticmethod
    def _compound(node: Node, write: Callable[[Node], str]) -> str:
        match node:
            case Seq(items):
                return f"({' '.join(map(write, items))})" if items else '""'
            case Alt(options):
                return f"({' | '.join(map(write, options))})"
            case Repeat(inner, least, most):
                return f"({write(inner)})" + _times(least, most)
        raise AssertionError(node)


def _times(least: int, most: int | None) -> str:
    if most is None:
        return {0: "*", 1: "+"}.get(least, f"{{{least},}}")
    return "?" if (least, most) == (0, 1) else f"{{{least},{most}}}"


def _class(ranges: tuple[tuple[int, int], ...], negated: bool) -> str:
    if negated and not ranges:
        return "/(?s:.)/"
    parts = [f"\\x{{{a:X}}}" if a == b else f"\\x{{{a:X}}}-\\x{{{b:X}}}" for a, b in ranges]
    return f"/[{'^' if negated else ''}{''.join(parts)}]/"
