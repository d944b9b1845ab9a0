"""`session.infer` with a constraint or a reasoning block, on the bundled model."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import engine
from engine import Constraint, InferenceParameters, Thinking

STORIES = Path(__file__).resolve().parents[2] / "models" / "stories.gguf"


@pytest.fixture(scope="module")
def model() -> Iterator[engine.Model]:
    params = engine.ModelParameters(use_gpu=False, n_threads=1, context_size=256)
    with engine.load(STORIES, params) as loaded:
        yield loaded


@pytest.fixture
def session(model: engine.Model) -> Iterator[engine.InferenceSession]:
    with model.start_session() as new_session:
        new_session.feed_prompt("Once upon a time")
        yield new_session


def text(session: engine.InferenceSession, constraint: Constraint | None = None, **fields: Any) -> str:
    thinking = fields.pop("thinking", None)
    params = InferenceParameters(**{"temperature": 0.0, "max_tokens": 80, **fields})
    return "".join(token.text for token in session.infer(params, constraint, thinking))


def test_infer_with_a_schema_matches_it(session: engine.InferenceSession) -> None:
    schema = {"type": "array", "items": {"type": "string", "maxLength": 9}, "minItems": 2, "maxItems": 3}
    for seed in range(4):
        data = json.loads(
            text(session, Constraint("json_schema", json.dumps(schema)), temperature=1.0, seed=seed)
        )
        assert 2 <= len(data) <= 3
        assert all(len(item) <= 9 for item in data)


def test_constrained_tokens_are_part_of_the_session(session: engine.InferenceSession) -> None:
    n = len(session.tokens)
    assert re.fullmatch("[a-z]{4}!", text(session, Constraint("regex", "[a-z]{4}!")))
    assert len(session.tokens) > n
    session.rewind(len(session.tokens) - n)
    free = text(session)
    session.rewind(len(session.tokens) - n)
    assert text(session, Constraint("regex", "(?s:.*)")) == free


def test_min_tokens_extends_a_constrained_text(session: engine.InferenceSession) -> None:
    assert text(session, Constraint("choice", '["yes"]'), ignore_eos=True) == "yes"
    assert text(session, Constraint("regex", ""), ignore_eos=True, min_tokens=5) == ""


def test_invalid_constraint_is_refused(session: engine.InferenceSession) -> None:
    with pytest.raises(engine.ConfigError, match="no rule 'root'"):
        session.infer(constraint=Constraint("gbnf", ""))
    with pytest.raises(engine.ConfigError, match="tokens that end it"):
        session.infer(thinking=Thinking(end=(), opened=True))
    only = 'root ::= "\x01" "\x02"'
    with pytest.raises(engine.ConfigError, match="every token is banned"):
        text(session, Constraint("gbnf", only), stop_token_ids=tuple(range(256)), min_tokens=50)


def test_reasoning_block_precedes_the_constrained_text(session: engine.InferenceSession) -> None:
    end = (session._model.tokenizer.vocabulary.ids["<|user|>"],)
    thinking = Thinking(end=end, opened=True, budget=6)
    n = len(session.tokens)
    content = text(session, Constraint("regex", "[0-9]{3}"), thinking=thinking)
    generated = session.tokens[n:]
    assert generated[6] == end[0]
    assert re.search("[^0-9][0-9]{3}$", content)
    tokens = session._model.tokenizer.token_bytes
    assert re.fullmatch("[0-9]{3}", b"".join(map(tokens, generated[7:])).decode())
