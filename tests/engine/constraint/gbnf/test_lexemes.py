"""Regular parts of GBNF become lexemes, where reading them as far as possible changes nothing."""

from __future__ import annotations

import pytest

from engine.constraint.gbnf.lark import to_lark
from engine.types import Constraint
from support.references.json_walk import accepts, compiler

# Each of them would go wrong if its parts were read as far as possible.
MUNCH = [
    ('root ::= [a-c]* "ab"', "aab", "aabb"),
    ('root ::= x y\nx ::= "a"* "(" y ")" | "a"*\ny ::= "ab"', "aaab", "aaa"),
    ('root ::= x\nx ::= "ab" | [ab] "b" "c" | "(" x ")"', "(abc)", "(ac)"),
    ('root ::= x "c"\nx ::= "a" x? | [ab]+', "aabac", "aaba"),
    ('root ::= x\nx ::= "é" "b" | [ë-ÿ] "c" | "(" x ")" | [\\xea-\\xec] "d"', "(ëc)", "(éc)"),
    ('root ::= x\nx ::= "[" [あ-ん]* "、" x "]" | "."', "[あい、.]", "[あい.]"),
    ('root ::= x\nx ::= "<" [^>]* ">" x? | [0-9]{1,3} "." [0-9]+ x?', "<a><b>12.5<c>", "<a><b>1234.5"),
]


@pytest.mark.parametrize(("grammar", "good", "bad"), MUNCH)
def test_grammar_that_greedy_lexing_would_change_matches_as_defined(
    grammar: str, good: str, bad: str
) -> None:
    matcher = compiler().compile(Constraint("gbnf", grammar))
    assert accepts(matcher, good)
    assert not accepts(matcher, bad)


def lexemes(grammar: str) -> int:
    return sum(line.startswith("L") for line in to_lark(grammar, lambda spelled: None).splitlines())


def test_regular_part_becomes_a_single_lexeme() -> None:
    assert lexemes('root ::= item+\nitem ::= "- " [^\\n]+ "\\n"') == 1
    string = 'string ::= "\\"" ([^"\\\\] | "\\\\" ["\\\\nrt])* "\\""'
    nested = f'root ::= "[" (string | root) ("," (string | root))* "]"\n{string}'
    assert lexemes(nested) == 4
