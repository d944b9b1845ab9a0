"""Look-ahead, and anchors inside of patterns, against Python's `re` and the patterns that libraries write."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.constraint.json_schema.shapes import names
from engine.constraint.matcher import ConstraintMatcher
from engine.errors import ConfigError
from engine.types import Constraint
from support.quick import examples
from support.references.json_walk import accepts, allowed, compiler, matcher_of, refusal

ALPHABET = 'ab1"\n\x7fé'
REFUSALS = (
    "^ behind what may be empty is not supported",
    "in so many alternatives is not supported",
)
DECIMAL = r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"  # pydantic 2
# zod 4.0 and 4.6
EMAIL = r"^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$"
HOSTNAME = (
    r"^(?=.{1,253}\.?$)[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
    r"(?:\.[a-zA-Z0-9](?:[-0-9a-zA-Z]{0,61}[0-9a-zA-Z])?)*\.?$"
)
DURATION = r"^P(?:(\d+W)|(?!.*W)(?=\d|T\d)(\d+Y)?(\d+M)?(\d+D)?(T(?=\d)(\d+H)?(\d+M)?(\d+([.,]\d+)?S)?)?)$"
EMOJI = (
    r"^(?=[\s\S]*[\p{Extended_Pictographic}\p{Regional_Indicator}\u20E3])"
    r"[\p{Extended_Pictographic}\p{Emoji_Component}]+$"
)
PASSWORD = r'^(?=.*[A-Z])(?=.*\d)(?=.*[!"])[A-Za-z\d!"]{8,}$'
PATTERNS: list[tuple[str, list[str], list[str]]] = [
    (DECIMAL, ["1", "+.5", "00.1", "-7.", "12345.678"], ["", "-", ".", "-.", "+-1", "1x"]),
    (EMAIL, ["a@b.de", "o'x.y@c.d.org"], [".a@b.de", "a..b@c.de", "a'@c.de", "a@c"]),
    (HOSTNAME, ["a", "a.b.", "x-y.org", "a." * 126 + "b"], ["-a", "a" * 64, "a." * 127 + "b", "a..b"]),
    (DURATION, ["P1W", "P1Y2M3DT4H5M6.5S", "PT1H"], ["P", "PT", "P1WT1H", "P1D2Y"]),
    (PASSWORD, ['Passw0rd"', "AAAAAAA1!"], ["Passw0rd", "password1!", "Pa1!"]),
]


def string(pattern: str, **keywords: Any) -> dict[str, Any]:
    return {"type": "string", "pattern": pattern, **keywords}


def written(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", r"\u007f")


def matcher_or_nothing(schema: dict[str, Any]) -> ConstraintMatcher | None:
    try:
        return matcher_of(schema)
    except ConfigError as error:
        if "nothing matches it" not in str(error):
            raise
        return None


def accepted_texts(schema: dict[str, Any], texts: list[str]) -> list[str]:
    """Those of the texts that match."""
    matcher = matcher_or_nothing(schema)
    return [] if matcher is None else [text for text in texts if accepts(matcher, written(text))]


@pytest.mark.parametrize(("pattern", "good", "bad"), PATTERNS)
def test_library_patterns_match_what_re_matches(pattern: str, good: list[str], bad: list[str]) -> None:
    assert [bool(re.search(pattern, text)) for text in good + bad] == [True] * len(good) + [False] * len(bad)
    assert accepted_texts(string(pattern), good + bad) == good


@pytest.mark.parametrize(
    ("pattern", "good", "bad"), [('^(?!b)"*$', ["", '""'], ['"a']), ("(?!^)", ["a"], [""])]
)
def test_look_ahead_handles_characters_that_json_escapes(
    pattern: str, good: list[str], bad: list[str]
) -> None:
    assert accepted_texts(string(pattern), good + bad) == good


def test_zods_emoji_pattern_requires_an_emoji() -> None:
    assert accepted_texts(string(EMOJI), ["😀", "1️⃣", "1", "a😀", ""]) == ["😀", "1️⃣"]


def walk(matcher: ConstraintMatcher, seed: int) -> str | None:
    """A string of ASCII that matches, chosen byte by byte; None if it did not come to an end."""
    matcher, chance, text = matcher.copy(), random.Random(seed), bytearray()
    for _ in range(2000):
        if matcher.may_stop:
            return str(json.loads(text))
        choice = [token for token in allowed(matcher) if token < 128]
        assert choice, f"nothing may follow {bytes(text)!r}"
        text.append(ord('"') if ord('"') in choice and chance.random() < 0.4 else chance.choice(choice))
        matcher.commit(text[-1])
    return None


@pytest.mark.parametrize("pattern", [pattern for pattern, _, _ in PATTERNS])
def test_random_texts_of_library_patterns_match_re(pattern: str) -> None:
    matcher = matcher_of(string(pattern))
    texts = [text for seed in range(12) if (text := walk(matcher, seed)) is not None]
    assert texts
    for text in texts:
        assert re.search(pattern, text)


@pytest.mark.parametrize(
    ("keywords", "good", "bad"),
    [
        ({"minLength": 3, "maxLength": 4}, ["1234", "1.5"], ["1", "12345"]),
        ({"allOf": [{"pattern": "5"}, {"pattern": "(?!5)^"}]}, ["1.5"], ["5.1", "1"]),
        ({"enum": ["1", "-", "2x"]}, ["1"], ["-", "2x", "3"]),
    ],
)
def test_other_keywords_alongside_look_ahead_hold(keywords: Any, good: list[str], bad: list[str]) -> None:
    assert accepted_texts(string(DECIMAL, **keywords), good + bad) == good


def test_format_alongside_look_ahead_holds() -> None:
    good, bad = ["a@b.de", "a.b+c@d-e.org"], ["a@b.de.", "a@-b.de", "..@a.de", f"{'a' * 65}@b.de"]
    assert accepted_texts(string(EMAIL, format="email"), good + bad) == good
    assert accepted_texts(
        string("^(?!2023)", format="date"), ["2024-02-29", "2023-01-01", "2024-13-01", ""]
    ) == ["2024-02-29"]


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("^((?!foo).)*$", "inside of a repetition"),
        ("(?:^a|b){2}", "inside of a repetition"),
        ("(?<=a)b(?=c)", "look-behind is not supported"),
        ("(?<!a)b", "look-behind is not supported"),
        (r"(?=(a))\1", "backreferences are not supported"),
        (r"(?=a)\bb", r"\b is not supported"),
        ("a*^(?=b)", "^ behind what may be empty"),
        ("(?=a)(?i)b", "'(?i)b' with look-ahead"),
        ("(?=a)*b", "'*b' with look-ahead"),
        ("(?=a))b", "')b' with look-ahead"),
        ("(?=(a)b", "with look-ahead"),
        ("(?=a)b{3,2}", "with look-ahead"),
        ("(?=a)b{99999999999}", "with look-ahead"),
        (r"(?=a)\p{Nix}", "with look-ahead"),
        ("(?=a)" + 5000 * "b", "more than 4000 characters"),
        (40 * "((?=a)b)?", "in so many alternatives"),
        ("(?=" + 40 * "(" + "a" + 41 * ")", "groups deeper than 30"),
        ("(?=.)" * 400, "more than 60 look-aheads"),
        ("(?=" + 300 * "." + ")", "in so long a pattern"),
    ],
)
def test_unsupported_pattern_is_refused_with_pattern_and_place(pattern: str, reason: str) -> None:
    schema = {"type": "object", "properties": {"x": string(pattern)}}
    message = refusal(schema)
    assert message.startswith("properties.x: the pattern '")
    assert reason in message
    left_out = matcher_of({**schema, "x-guidance": {"lenient": True}})
    assert accepts(left_out, '{"x": "anything"}')


ATOMS = st.sampled_from(
    ["a", "b", "1", '"', "\\n", ".", "[ab]", "[^a]", r"\d", r"\D", r"\w", r"\s", r"[^\s1]"]
)
TIMES = st.sampled_from(["", "", "", "*", "+", "?", "{2}", "{1,2}", "*?"])


def sequences(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    plain = st.tuples(ATOMS, TIMES).map("".join)
    group = st.tuples(st.sampled_from(["(", "(?:"]), inner, st.sampled_from([")", ")", ")?"])).map("".join)
    ahead = st.tuples(st.sampled_from(["(?=", "(?!"]), inner, st.just(")")).map("".join)
    items = st.lists(st.one_of(plain, plain, ahead, group), max_size=4).map("".join)
    ends = st.tuples(st.sampled_from(["", "", "^"]), items, st.sampled_from(["", "", "$"])).map("".join)
    return st.lists(ends, min_size=1, max_size=2).map("|".join)


BODY = st.recursive(
    st.lists(st.tuples(ATOMS, TIMES).map("".join), max_size=3).map("".join), sequences, max_leaves=6
)
PATTERN = st.tuples(
    st.sampled_from(["", "^"]), st.sampled_from(["(?=", "(?!"]), BODY, st.just(")"), BODY
).map("".join)
TEXTS = st.lists(st.text(ALPHABET, max_size=6), min_size=12, max_size=12)


@examples(300)
@given(PATTERN, TEXTS)
def test_any_pattern_matches_what_re_matches(pattern: str, texts: list[str]) -> None:
    fault = names.fault(pattern)
    if fault:
        assert fault.endswith(REFUSALS), (pattern, fault)
        return
    texts += ["", "a", "b", "ab", "ba", "1", '"', "a\n", "aab", "bab"]
    assert accepted_texts(string(pattern), texts) == [text for text in texts if names.matches(pattern, text)]


@examples(200)
@given(PATTERN, TEXTS)
def test_any_pattern_of_a_whole_text_matches_what_re_matches(pattern: str, texts: list[str]) -> None:
    texts += ["", "a", "b", "ab", "ba", "1", '"', "a\n", "aab", "bab"]
    to_the_end = pattern.replace("$", r"\Z")
    expected = [text for text in texts if re.fullmatch(to_the_end, text, re.ASCII)]
    reason, accepted = "", []
    try:
        matcher = compiler().compile(Constraint("regex", pattern))
    except ConfigError as error:
        reason = str(error)
    else:
        accepted = [text for text in texts if accepts(matcher, text)]
    assert reason.endswith(REFUSALS) or (reason in ("", "nothing matches it") and accepted == expected)


@examples(100)
@given(PATTERN, st.integers(0, 1000))
def test_any_pattern_has_no_dead_end(pattern: str, seed: int) -> None:
    if names.fault(pattern):
        return
    matcher = matcher_or_nothing(string(pattern))
    text = None if matcher is None else walk(matcher, seed)
    assert text is None or names.matches(pattern, text)
