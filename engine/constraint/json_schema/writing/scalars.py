"""Numbers and strings in llguidance's dialect of Lark: as terminals, or as `%json` of its own."""

from __future__ import annotations

import json
from decimal import Decimal
from functools import lru_cache
from typing import Any

from engine.constraint.json_schema.shapes import lookahead, names
from engine.constraint.json_schema.shapes.formats import FORMATS
from engine.constraint.json_schema.shapes.lookahead import CHARACTER
from engine.constraint.json_schema.shapes.types import Number, String
from engine.constraint.json_schema.writing import digits
from engine.errors import ConfigError
from engine.exact_json import dumps, number_text

_EXACT = Decimal(2**53)  # up to which llguidance's numbers are exact
_NOTHING = '("" & /a/)'
# How terminals of names are called that a schema does not list. Those of the second kind may have beginnings
# that only few names share; a number follows, of names that an object with such names has at most.
FREE_NAME = "FREE_NAME_"
LIMITED_NAME = "LIMITED_NAME_"


def quoted(text: str) -> str:
    """A string as this grammar spells it."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", r"\u007f")


def regex(text: str) -> str:
    return f"/{text.replace('/', chr(92) + '/')}/"


def number_terminal(shape: Number) -> str:
    if shape.values is not None:
        return " | ".join(
            json.dumps(text) for value in shape.values for text in _spellings(value, shape.integer)
        )
    if shape.multiples:
        return multiple_leaf(shape)
    bounds = shape.low, shape.low_open, shape.high, shape.high_open
    if shape.integer:
        return regex(digits.integers(*digits.integer_bounds(*bounds)))
    return regex(digits.decimals(*bounds))


def string_terminal(shape: String) -> str:
    if shape.values is not None:
        return " | ".join(json.dumps(quoted(value), ensure_ascii=False) for value in shape.values)
    if shape.patterns or shape.formats:
        return string_leaf(shape)
    if not shape.least and shape.most is None:
        return regex(f'"({CHARACTER})*"')
    most = "" if shape.most is None else shape.most
    return regex(f'"({CHARACTER}){{{shape.least},{most}}}"')


def _spellings(value: Decimal, integer: bool) -> list[str]:
    whole = value == value.to_integral_value() and value.adjusted() < 40
    texts = [str(int(value))] if whole else []
    return texts if whole and integer else list(dict.fromkeys([*texts, number_text(value)]))


def string_leaf(shape: String) -> str:
    for pattern in shape.patterns:
        fault = names.fault(pattern)
        if fault:
            raise ConfigError(f"{shape.where}the pattern {names.shown(pattern)} cannot be enforced: {fault}")
    if any(map(names.regex_fault, shape.patterns)):
        return _intersection(shape)
    parts: list[dict[str, Any]] = [{"pattern": names.rust(pattern)} for pattern in shape.patterns]
    parts += [{"format": format} for format in shape.formats]
    node: dict[str, Any] = {"type": "string"}
    if len(shape.patterns) < 2 and len(shape.formats) < 2:
        for part in parts:
            node |= part
    else:
        node["allOf"] = parts
    if shape.least:
        node["minLength"] = shape.least
    if shape.most is not None:
        node["maxLength"] = shape.most
    return "%json " + dumps({**node, "x-guidance": {"whitespace_flexible": False}})


def string_matches(shape: String) -> bool:
    """Whether there is a string of a shape with patterns or formats."""
    leaf = string_leaf(shape)
    return leaf_matches(leaf) if leaf.startswith("%json") else terminal_matches(leaf)


def _intersection(shape: String) -> str:
    """A terminal in place of `%json`, which has no look-ahead."""
    patterns = [*shape.patterns, *(FORMATS[format] for format in shape.formats)]
    parts = [lookahead.content(names.rust(pattern)) or _NOTHING for pattern in patterns]
    if shape.least or shape.most is not None:
        most = "" if shape.most is None else shape.most
        parts.append(regex(f"({CHARACTER}){{{shape.least},{most}}}"))
    return f'("\\"" ({" & ".join(parts)}) "\\"")'


def multiple_leaf(shape: Number) -> str:
    node: dict[str, Any] = {"type": "integer" if shape.integer else "number"}
    for name, bound, open in (
        ("inimum", shape.low, shape.low_open),
        ("aximum", shape.high, shape.high_open),
    ):
        if bound is not None:
            if abs(bound) > _EXACT or Decimal(repr(float(bound))) != bound:
                raise ConfigError(
                    "multipleOf with bounds of more digits than a double holds is not supported"
                )
            node[("exclusiveM" if open else "m") + name] = bound
    parts = [{"multipleOf": multiple} for multiple in shape.multiples]
    node |= parts[0] if len(parts) == 1 else {"allOf": parts}
    leaf = "%json " + dumps({**node, "x-guidance": {"whitespace_flexible": False}})
    if "too many digits" in _leaf_error(leaf):  # it scales doubles, which 0.00001234 does not survive
        multiples = " and ".join(map(number_text, shape.multiples))
        raise ConfigError(f"multipleOf: {multiples} has too many digits, which is not supported")
    return leaf


def leaf_matches(leaf: str) -> bool:
    return not _leaf_error(leaf)


@lru_cache(1024)
def _leaf_error(leaf: str) -> str:
    from llguidance import LLMatcher

    error: str = LLMatcher.validate_grammar(f"start: {leaf}")
    return error


@lru_cache(1024)
def terminal_matches(text: str) -> bool:
    """Whether anything matches a terminal. llguidance takes one that nothing matches, and is then stuck."""
    from llguidance import LLMatcher

    tokenizer = lookahead.byte_tokenizer()
    matcher = LLMatcher(tokenizer, f"start: X\nX: {text}", log_level=0)
    mask = int.from_bytes(matcher.compute_bitmask(), "little")
    return bool(mask & ~(1 << tokenizer.eos_token))
