"""GBNF: what is read, what is refused, and that the grammar in Lark matches exactly the same texts."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from functools import cache
from itertools import product
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given
from hypothesis import strategies as st

from engine.constraint.compiler import ConstraintCompiler, ConstraintMatcher, GrammarVocabulary
from engine.constraint.gbnf.parser import Alt, Chars, Node, Ref, Repeat, Rules, Seq, Text, TokenRef, parse
from engine.errors import ConfigError
from engine.types import Constraint
from ggml import fetch
from support.quick import examples

END, NAMED, WORD = 256, 257, 258
TOKENS = [*(bytes([b]) for b in range(256)), b"<end>", b"<named>", b"word"]
BYTES = GrammarVocabulary(TOKENS, [END, NAMED], [END], len(TOKENS))
BYTES.tokens[0xFF] = b""


@cache
def compiler() -> ConstraintCompiler:
    return ConstraintCompiler(BYTES)


def no_tokens(spelled: str) -> int | None:
    return None


def matches(grammar: str, text: str | Iterable[int]) -> bool:
    """Whether llguidance takes the whole of a text, byte by byte (or token by token)."""
    matcher = compiler().compile(Constraint("gbnf", grammar))
    for token in text.encode() if isinstance(text, str) else text:
        try:
            matcher.commit(token)
        except ConfigError:
            return False
    return matcher.may_stop


class Reference:
    """Matches by definition: sets of ends, no lexemes."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules

    def matches(self, text: str) -> bool:
        @cache
        def ends(node: Node, start: int) -> frozenset[int]:
            match node:
                case Text(literal):
                    return frozenset([start + len(literal)] if text.startswith(literal, start) else [])
                case Chars(ranges, negated):
                    inside = start < len(text) and any(a <= ord(text[start]) <= b for a, b in ranges)
                    return frozenset([start + 1] if start < len(text) and inside != negated else [])
                case Ref(rule):
                    return ends(self.rules[rule], start)
                case Seq(items):
                    actual = frozenset([start])
                    for item in items:
                        actual = frozenset(end for middle in actual for end in ends(item, middle))
                    return actual
                case Alt(options):
                    return frozenset(end for option in options for end in ends(option, start))
                case Repeat(inner, least, most):
                    layer, actual, n = frozenset([start]), set(), 0
                    while layer:
                        if n >= least:
                            if layer <= actual:
                                break
                            actual |= layer
                        if n == most or n > least + len(text) + 1:
                            break
                        layer = frozenset(end for middle in layer for end in ends(inner, middle))
                        n += 1
                    return frozenset(actual)
            raise AssertionError(node)

        return len(text) in ends(self.rules["root"], 0)


def grammar_files() -> list[Path]:
    folder = fetch.pinned_package((f"{fetch.LLAMA}/grammars",)) / fetch.LLAMA / "grammars"
    return sorted(folder.glob("*.gbnf"))


# text that matches, text that does not; the files are llama.cpp's own examples
EXAMPLES = {
    "arithmetic": (["1+2*(b-3)=a\n", "x1 =  \n\t4\n"], ["a=1+2\n", "a=1"]),
    "c": (
        [
            "int main(){int  x = 4*( 2+f(1,  y) );while(x<10){x  = x-1;}//no\n}",
            "int f(float  a){return  -a;}",
        ],
        ["int main({}", "int 1x(){}"],
    ),
    "chess": (["1. e4 e5\n2. Nf3 Nc6\n", "1. O-O O-O-O+\n10. axb8=Q Kd7#\n"], ["1. e4 e5\n", "2. e4 e5\n"]),
    "english": (["Hello, world! [x] \\ ^", "a\tb\nc"], ["é", "a  b"]),
    "japanese": (["ひらがな、カタカナ 漢字", "一"], ["a", "ひ  ひ"]),
    "json": (
        ['{"a": [1, -2.5e+1, {"b": null}], "c\\u00e9": "d"}', "{\n  }", '{"x":true }'],
        ["[1]", "{'a':1}", '{"a":01}', "{ }x", '{"a":1,}'],
    ),
    "json_arr": (['[\n1,\n{"a": [2]}]', "[\n]"], ["[1]", "[\n1,2]", "{}"]),
    "list": (["- a\n- b c\n", "- é\n"], ["a\n", "- a", "-  \r\n"]),
}


@pytest.mark.parametrize("path", grammar_files(), ids=lambda path: path.stem)
def test_llama_cpps_grammars_are_parsed(path: Path) -> None:
    grammar = path.read_text()
    good, bad = EXAMPLES[path.stem]
    reference = Reference(parse(grammar, no_tokens))
    for text in good:
        assert reference.matches(text), text
        assert matches(grammar, text), text
    for text in bad:
        assert not reference.matches(text), text
        assert not matches(grammar, text), text


# ** any grammar **

LETTERS = "abé"
literals = st.text(LETTERS, max_size=3).map(Text)
classes = st.builds(
    Chars,
    st.lists(st.sampled_from(LETTERS + "c"), min_size=1, max_size=3).map(
        lambda letters: tuple((ord(c), ord(c)) for c in letters)
    ),
    st.booleans(),
)
NAMES = ("root", "x", "y", "z")
repeats = st.sampled_from([(0, 1), (0, None), (1, None), (2, 2), (0, 2), (1, 3), (2, None), (0, 0)])
nodes = st.recursive(
    st.one_of(literals, classes, st.sampled_from(NAMES[1:]).map(Ref)),
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=4).map(lambda items: Seq(tuple(items))),
        st.lists(inner, min_size=2, max_size=3).map(lambda options: Alt(tuple(options))),
        st.builds(lambda node, times: Repeat(node, *times), inner, repeats),
    ),
    max_leaves=8,
)


def written(node: Node) -> str:
    """GBNF again."""
    match node:
        case Text(text):
            return f'"{text}"'
        case Chars(ranges, negated):
            return f"[{'^' * negated}{''.join(chr(a) for a, _ in ranges)}]"
        case Ref(rule):
            return rule
        case Seq(items):
            return f"({' '.join(map(written, items))})"
        case Alt(options):
            return f"({' | '.join(map(written, options))})"
        case Repeat(inner, least, most):
            return f"({written(inner)}){{{least},{'' if most is None else most}}}"
    raise AssertionError(node)


TEXTS = sorted("".join(letters) for n in range(6) for letters in product(LETTERS, repeat=n))


def accepted(grammar: str) -> list[str]:
    """Those of TEXTS that llguidance takes. On the way masks must say what is then taken."""
    collected: list[str] = []
    mask = array("I", bytes(4 * compiler().n_words))

    def walk(matcher: ConstraintMatcher, text: str) -> None:
        if matcher.may_stop:
            collected.append(text)
        if len(text) == 5:
            return
        matcher.fill(mask)
        allowed = {c for c in LETTERS if mask[c.encode()[0] // 32] >> c.encode()[0] % 32 & 1}
        for letter in LETTERS:
            following = matcher.copy()
            try:
                for byte in letter.encode():
                    following.commit(byte)
            except ConfigError:
                assert letter not in allowed or letter == "é"  # which may fail at its second byte
            else:
                assert letter in allowed
                walk(following, text + letter)

    try:
        matcher = compiler().compile(Constraint("gbnf", grammar))
    except ConfigError as error:
        if str(error) != "nothing matches it":
            raise
        return []
    walk(matcher, "")
    return sorted(collected)


@examples(150, suppress_health_check=[HealthCheck.filter_too_much])
@given(st.tuples(*[nodes] * len(NAMES)))
def test_random_grammar_matches_the_texts_of_its_definition(bodies: tuple[Node, ...]) -> None:
    grammar = "\n".join(f"{name} ::= {written(body)}" for name, body in zip(NAMES, bodies, strict=True))
    try:
        reference = Reference(parse(grammar, no_tokens))
    except ConfigError as error:
        assume("left-recursive" not in str(error))
        raise
    assert accepted(grammar) == [text for text in TEXTS if reference.matches(text)]


def test_parse_of_token_rules_matches_tokens_only() -> None:
    grammar = 'root ::= <named> ("a" | <[258]>) !<[258]> .*'
    assert matches(grammar, [NAMED, ord("a"), ord("x"), ord("y")])
    assert matches(grammar, [NAMED, WORD, ord("x")])
    assert not matches(grammar, [NAMED, WORD, WORD])
    assert not matches(grammar, "<named>ax")


def test_parse_of_escapes_matches_their_characters() -> None:
    grammar = 'root ::= "\\x41\\u00e9\\U0001F600\\t\\"\\\\" [\\]\\-\\x5b] [^\\n] [a-] .'
    assert matches(grammar, 'Aé😀\t"\\]x-\n')
    assert matches(grammar, 'Aé😀\t"\\[ïa\u2028')
    assert not matches(grammar, 'Aé😀\t"\\]\n-\n')


def test_parse_ignores_comments_and_line_breaks() -> None:
    grammar = '\r\n# one\nroot ::= # two\n  (\n  "a"  # three\n | b\n)\r\n\nb-1 ::= "x" |\n "y"\nb ::= b-1'
    assert [matches(grammar, text) for text in ("a", "x", "y", "b")] == [True, True, True, False]


REFUSED = [
    ("", "the grammar has no rule 'root'"),
    ('x ::= "a"', "the grammar has no rule 'root'"),
    ("root ::= x", "the rule 'x' is not defined"),
    ('root ::= "a"\ny ::= x', "the rule 'x' is not defined"),
    ('root ::= root "a" | "a"', "the rule 'root' is left-recursive"),
    ('root ::= "b"? x\nx ::= y | "a"\ny ::= "c"* x', "is left-recursive"),
    ('root "a"', "line 1, column 6: expected '::=' (at '\"a\"')"),
    ('root ::= "a\n', "line 2, column 1: unexpected end of the grammar"),
    ("root ::= [a", "unexpected end of the grammar"),
    ("root ::= []", "the character class is empty"),
    ("root ::= [z-a]", "a range ends before it begins"),
    ('root ::= "\\q"', "unknown escape sequence"),
    ('root ::= "\\x4"', "2 hexadecimal digits"),
    ('root ::= "\\ud800"', "U+D800 is not a character"),
    ('root ::= "\\U00110000"', "U+110000 is not a character"),
    ("root ::= *", "there is nothing to repeat before it"),
    ('root ::= "a"{2,1}', "{2,1} is not a range"),
    ('root ::= "a"{1000001}', "more than 1000000 repetitions"),
    ('root ::= "a"{x}', "expected a number"),
    ('root ::= ("a"', "expected ')'"),
    ('root ::= "a")', "expected a new line or the end"),
    ("root ::= <nix>", "the vocabulary has no such token"),
    ("root ::= <[99999999999]>", "the token id is out of range"),
    ("root ::= !x", "expected a token"),
    ("root ::= " + "(" * 5000 + '"a"' + ")" * 5000, "groups are nested deeper than 100"),
    ("root ::= " + '"a" ' * 60_000, "the grammar has more than 50000 symbols"),
    ("root ::= x\n" + "\n".join(f'x{i} ::= "a"' for i in range(6000)), "more than 5000 rules"),
    ('root ::= "\0' + "a" * 20, "unexpected end of the grammar"),
]


@pytest.mark.parametrize(("grammar", "message"), REFUSED)
def test_parse_of_an_invalid_grammar_names_the_mistake(grammar: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse(grammar, no_tokens)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_long_chain_of_rules_is_parsed() -> None:
    rules = [f'x{i} ::= "a" x{i + 1}' for i in range(4000)]
    assert matches("\n".join(["root ::= x0", *rules, 'x4000 ::= "b"']), "a" * 4000 + "b")


def test_token_references_become_nodes() -> None:
    assert parse("root ::= <[7]> !<[8]>", no_tokens)["root"] == Seq((TokenRef(7), TokenRef(8, negated=True)))
