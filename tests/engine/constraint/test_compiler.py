"""Constraints on real vocabularies: what compiles, which tokens may come, and what is refused."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from jsonschema import Draft202012Validator

from engine.constraint import compiler as subject
from engine.constraint.compiler import (
    ConstraintCompiler,
    GrammarVocabulary,
    grammar,
    token_rule,
    vocabulary_of,
)
from engine.errors import ConfigError
from engine.types import Constraint
from support.quick import every
from support.references.constraint_walk import Walk, allowed, compiler, tokenizer


def takes(constraint: Constraint, text: str, name: str = "stories") -> bool:
    """Whether the whole text matches, as the tokenizer cuts it."""
    matcher = compiler(name).compile(constraint)
    tokens = tokenizer(name).encode(text, add_special=False)
    if tokenizer(name).add_space_prefix:
        byte_ids = {tokenizer(name).token_bytes(i): i for i in range(3, 259)}
        tokens = [byte_ids[bytes([b])] for b in text.encode()]
    for token in tokens:
        if token not in allowed(matcher, compiler(name).n_words):
            assert not matcher.accepts(token)
            return False
        assert matcher.accepts(token)
        matcher.commit(token)
    return matcher.may_stop


PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 9}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
KINDS: list[tuple[Constraint, list[str], list[str]]] = [
    (Constraint("json_object"), ['{"a": [1, null]}', "{}"], ["[]", '{"a"}', "{}x", " {}"]),
    (
        Constraint("json_schema", json.dumps(PERSON)),
        ['{"name": "Lily", "age": 7}', '{\n  "name": "",\n  "age": 0\n}'],
        ['{"age": 7, "name": "Lily"}', '{"name": "Lily"}', '{"name": "0123456789", "age": 1}'],
    ),
    (Constraint("json_schema", "true"), ["3", '"x"', "[]"], ["x"]),
    (Constraint("json_schema", '{"items": [{"type": "integer"}]}'), ["[ -300 ]", "[]"], ['["x"]']),
    (Constraint("regex", r"\d{3}-[a-z/]+|né"), ["123-ab/c", "né"], ["12-a", "1234-a", "123-"]),
    (Constraint("regex", "^ab?$"), ["a", "ab"], ["abb", ""]),
    (Constraint("regex", r"\d\w?\s?"), ["1", "1a ", "1_\t"], ["٣", "1é", "1\u00a0"]),
    (Constraint("regex", r"[^\D5]"), ["1"], ["5", "٣"]),
    (Constraint("regex", ""), [""], ["a"]),
    (Constraint("regex", r"(?=.*\d)(?!.*aa)[a-z\d]{3}"), ["a1a", "1ab"], ["aa1", "abc", "a1", "٣ab"]),
    (Constraint("regex", "^(?:yes|no(?!$).+)$"), ["yes", "not"], ["no", "yess"]),
    (Constraint("regex", r'(?!")[\s\S]+|b$'), ["a\n", "b", "'"], ['"', '"a', ""]),
    (
        Constraint("choice", '["yes", "yes, please", "n\\"o\\n"]'),
        ["yes", "yes, please", 'n"o\n'],
        ["ye", "no"],
    ),
    (Constraint("gbnf", 'root ::= "a" [b-d]+ | "é"'), ["abcd", "é"], ["a", "e"]),
    (Constraint("lark", 'start: NAME ("," NAME)*\nNAME: /[a-z]+/'), ["a,bc"], ["a,", ","]),
]


@pytest.mark.parametrize("name", ["stories", "llama-spm"])
@pytest.mark.parametrize(("constraint", "good", "bad"), KINDS, ids=lambda v: getattr(v, "kind", ""))
def test_compile_of_each_kind_accepts_only_its_language(
    name: str, constraint: Constraint, good: list[str], bad: list[str]
) -> None:
    for text in good:
        assert takes(constraint, text, name), text
    for text in bad:
        assert not takes(constraint, text, name), text


@pytest.mark.parametrize("name", every(2, ["stories", "llama-spm", "gpt-2", "qwen2"]))
def test_every_allowed_token_can_be_continued(name: str) -> None:
    for seed in range(3):
        walk = Walk(Constraint("json_schema", json.dumps(PERSON)), name, seed).run(60, b'"},:0')
        assert walk.matcher.may_stop
        Draft202012Validator(PERSON).validate(json.loads(walk.text))
        walk = Walk(Constraint("regex", "(ab|é|日本| ){3,5}!"), name, seed).run(40)
        assert re.fullmatch("(ab|é|日本| ){3,5}!", walk.text)
        assert walk.matcher.must_stop


@pytest.mark.parametrize("name", every(3, ["stories", "llama-spm", "qwen2"]))
def test_special_token_does_not_match_its_text(name: str) -> None:
    special = [i for i in range(tokenizer(name).n_vocab) if tokenizer(name).is_special(i)]
    assert special
    free = allowed(compiler(name).compile(Constraint("regex", "(?s:.*)")), compiler(name).n_words)
    assert free & set(special) == tokenizer(name).eog_ids & set(special)
    text = tokenizer(name).token_text(special[0])
    assert takes(Constraint("choice", json.dumps([text])), text, name)
    matcher = compiler(name).compile(Constraint("lark", f'start: <[{special[0]}]> "x"'))
    assert allowed(matcher, compiler(name).n_words) == {special[0]}
    matcher = compiler(name).compile(Constraint("lark", f"start: {text}"))
    assert allowed(matcher, compiler(name).n_words) == {special[0]}


def test_grammar_names_a_token_by_text_or_id() -> None:
    stories = tokenizer("stories")
    end = stories.vocabulary.ids["<|end|>"]
    assert token_rule(stories, end) == f"<[{end}]>"
    (quote,) = stories.encode('"', add_special=False)
    assert token_rule(stories, quote) == '"\\""'


def test_free_text_until_a_trigger_is_unconstrained() -> None:
    """As the module's documentation has it."""
    call = 'start: (call)* /(?s:.*)/\ncall: until %json {"type": "object"} "</tool_call>"\n'
    call += "until[lazy]: /(?s:.*)<tool_call>/\n"
    good = ["", "Just text, <b>or</b> < so.", 'I see. <tool_call>{"a": 1}</tool_call>']
    good.append('a<tool_call>{}</tool_call>b<tool_call>{ "x": [2]}</tool_call> c')
    bad = ["<tool_call>", "<tool_call>x", "a<tool_call>{}", "a<tool_call>{}</tool_call><tool_call>"]
    for text in good:
        assert takes(Constraint("lark", call), text), text
    for text in bad:
        assert not takes(Constraint("lark", call), text), text
    needed = call.replace("(call)*", "(call)+")
    assert not takes(Constraint("lark", needed), good[1])
    assert takes(Constraint("lark", needed), good[2])


def test_special_token_as_trigger_starts_the_constraint() -> None:
    stories = tokenizer("stories")
    mark = stories.vocabulary.ids["<|user|>"]
    lark = f"start: (TEXT <[{mark}]> /[0-9]+/)* TEXT\nTEXT: /(?s:.*)/"
    matcher = compiler().compile(Constraint("lark", lark))
    for token in stories.encode("any text", add_special=False):
        matcher.commit(token)
    assert matcher.may_stop
    matcher.commit(mark)
    assert not matcher.may_stop
    texts = {stories.token_bytes(i) for i in allowed(matcher, compiler().n_words)}
    assert texts
    assert all(text.isdigit() for text in texts)


def test_cached_constraint_gives_independent_matchers() -> None:
    constraint = Constraint("regex", "[a-z]{2}")
    one, other = compiler().compile(constraint), compiler().compile(constraint)
    (token,) = tokenizer("stories").encode("a", add_special=False)
    one.commit(token)
    one.commit(token)
    assert one.must_stop
    assert not other.may_stop
    assert compiler().submit(constraint).done()


def test_same_constraint_at_once_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    own, written = ConstraintCompiler(vocabulary_of(tokenizer("stories"))), []
    monkeypatch.setattr(subject, "grammar", lambda *fields: written.append(fields) or grammar(*fields))
    matchers = [future.result() for future in [own.submit(KINDS[1][0]) for _ in range(20)]]
    own.close()
    assert len(written) == 1
    assert len({id(matcher) for matcher in matchers}) == 20


def test_compile_from_several_threads_gives_the_same_result() -> None:
    own = ConstraintCompiler(vocabulary_of(tokenizer("stories")))
    constraints = [Constraint("regex", f"a{{{n}}}") for n in range(1, 40)] * 3
    with ThreadPoolExecutor(8) as threads:
        for n, matcher in zip([*range(1, 40)] * 3, threads.map(own.compile, constraints), strict=True):
            assert matcher.may_stop is False, n
    assert len(own._known) == subject._CACHED_CONSTRAINTS
    own.close()


def test_vocabulary_with_more_or_fewer_logits_than_tokens_is_handled() -> None:
    stories = tokenizer("stories")
    more = ConstraintCompiler(vocabulary_of(stories, stories.n_vocab + 70))
    assert more.n_words == (stories.n_vocab + 70 + 31) // 32
    free = allowed(more.compile(Constraint("regex", "(?s:.*)")), more.n_words)
    assert max(free) < stories.n_vocab
    fewer = vocabulary_of(stories, 40)
    assert len(fewer.tokens) == 40
    assert max([*fewer.special, *fewer.eog]) < 40


def test_vocabulary_without_end_token_still_reports_completion() -> None:
    letters = ConstraintCompiler(GrammarVocabulary([b"a", b"b", b"\xff", b""], [], [], 4))
    matcher = letters.compile(Constraint("regex", "a|ab"))
    assert allowed(matcher, letters.n_words) == {0}
    matcher.commit(0)
    assert matcher.may_stop
    assert allowed(matcher, letters.n_words) - {4} == {1}
    matcher.commit(1)
    assert matcher.must_stop


def test_lenient_schema_is_enforced_in_part() -> None:
    schema = {"x-guidance": {"lenient": True}, "type": "array", "uniqueItems": True}
    matcher = compiler().compile(Constraint("json_schema", json.dumps(schema)))
    assert any("uniqueItems" in line for line in matcher.ignored)
    assert matcher.copy().ignored == matcher.ignored


REFUSED = [
    (Constraint("nix"), "must be one of json_schema"),
    (Constraint("json_schema", "{"), "the JSON is not valid"),
    (Constraint("json_schema", "[" * 100_000), "the JSON is nested too deeply"),
    (Constraint("json_schema", '{"not": {}}'), "nothing matches it: what is excluded is everything"),
    (
        Constraint("json_schema", '{"type": "string", "pattern": "("}'),
        "the pattern '(' cannot be enforced: unclosed group",
    ),
    (Constraint("json_schema", '{"$ref": "#"}'), "nothing matches it"),
    (Constraint("regex", "(?=a)"), "nothing matches it"),
    (Constraint("regex", "(?=a)(?!a).*"), "nothing matches it"),
    (Constraint("regex", "a$b"), "nothing matches it"),
    (Constraint("regex", "(?<=a)b"), "look-behind is not supported"),
    (Constraint("regex", r"(?=(a))\1"), "backreferences are not supported"),
    (Constraint("regex", "((?!a).)*"), "inside of a repetition"),
    (Constraint("regex", r"a\b"), r"\b is not supported"),
    (Constraint("regex", "a{2,1}"), "a regex is not valid"),
    (Constraint("choice", "[]"), "at least one"),
    (Constraint("choice", '"a"'), "a list of strings"),
    (Constraint("choice", '["a", 1]'), "a list of strings"),
    (Constraint("choice", json.dumps(["a"] * 10_001)), "more than 10000 choices"),
    (Constraint("gbnf", "root ::= <nix>"), "the vocabulary has no such token"),
    (Constraint("lark", ""), "no start rule"),
    (Constraint("lark", 'start: "a" x\nx: y'), "line 2, column 4: unknown name"),
    (Constraint("lark", "start: <nix>"), "unknown special token"),
    (Constraint("lark", "start: start"), "nothing matches it"),
    (Constraint("lark", 'start: "\ud800"'), "unpaired surrogates"),
    (Constraint("lark", "x" * (512 * 1024 + 1)), "at most 524288"),
    (Constraint("lark", 'start: "a"\n' + "x: \n" * 5001), "more than 5000 rules"),
    (Constraint("lark", "\0%%/("), "lexer error"),
]


@pytest.mark.parametrize(("constraint", "message"), REFUSED)
def test_compile_of_an_invalid_constraint_names_the_mistake(constraint: Constraint, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        compiler().compile(constraint)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 400


def test_property_named_like_a_terminal_is_treated_as_any_other() -> None:
    schema = {"properties": {f"LIMITED_NAME_{'9' * 5000}_": {"type": "null"}}, "additionalProperties": False}
    compiler().compile(Constraint("json_schema", json.dumps({"type": "object", **schema})))


def test_probe_of_a_too_complex_constraint_is_refused() -> None:
    wide = "start: " + " | ".join(f"a{i}" for i in range(2000)) + "\n"
    wide += "".join(f'a{i}: "x{i}" a{i * 7 % 2000}?\n' for i in range(2000))
    with pytest.raises(ConfigError, match="too complex"):
        compiler().probe(compiler().compile(Constraint("lark", wide)))


def test_text_with_one_endless_continuation_never_stops() -> None:
    """llguidance would look for its end if it were not told not to."""
    for lark in ("start: A B\nA: /a*/\nB: /ab/", '%llguidance {"no_forcing": false}\nstart: "a" start'):
        matcher = compiler().compile(Constraint("lark", lark))
        (token,) = tokenizer("stories").encode("a", add_special=False)
        for _ in range(20):
            assert token in allowed(matcher, compiler().n_words)
            matcher.commit(token)
        assert not matcher.may_stop


FORCED = [
    Constraint("lark", 'start: "abcdef" "gh"'),
    Constraint("lark", '%llguidance {"no_forcing": false}\nstart: "abcdef" "gh"'),
    Constraint("json_schema", '{"const": {"a name": [1, 2]}}'),
    Constraint("choice", '["abcdef"]'),
    Constraint("gbnf", 'root ::= "abcdef"'),
]


@pytest.mark.parametrize(("options", "asks"), [(subject._OPTIONS, False), ("\n", True)])
def test_llguidance_tokenizes_no_text_without_forcing(
    options: str, asks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the vocabulary it is given need not tokenize. It would, for the only text that is allowed."""
    texts: list[str] = []

    class Tokenizing(subject._TokenizerWrapper):
        def __call__(self, text: str) -> list[int]:
            texts.append(text)
            return list(text.encode())

    monkeypatch.setattr(subject, "_TokenizerWrapper", Tokenizing)
    monkeypatch.setattr(subject, "_OPTIONS", options)
    end = 255
    own = ConstraintCompiler(
        GrammarVocabulary([*(bytes([i]) for i in range(end)), b"<end>"], [end], [end], end + 1)
    )
    for constraint in FORCED:
        matcher = own.compile(constraint)
        own.probe(matcher)
        while not matcher.must_stop:
            matcher.commit(min(allowed(matcher, own.n_words) - {end}))
    own.close()
    assert bool(texts) == asks


def test_choice_and_regex_are_written_as_lark() -> None:
    nothing = GrammarVocabulary([], [], [], 0)
    assert grammar(Constraint("choice", '["a/b", "\\u00e9"]'), nothing).text == 'start: "a/b" | "\\u00e9"'
    assert grammar(Constraint("regex", "a/b"), nothing).text == r"start: /a\/b/"
