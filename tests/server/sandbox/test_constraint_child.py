"""What a trial compilation answers."""

from __future__ import annotations

import json

import pytest

from engine.constraint.compiler import ConstraintCompiler, vocabulary_of
from engine.types import Constraint
from server.sandbox.constraint_child import CheckResult, check
from support.fakes.engine import tokenizer


@pytest.fixture(scope="module")
def compiler() -> ConstraintCompiler:
    return ConstraintCompiler(vocabulary_of(tokenizer()))


def test_valid_constraint_has_no_error(compiler: ConstraintCompiler) -> None:
    assert check(compiler, Constraint("regex", "a+")) == CheckResult()


def test_invalid_constraint_is_explained(compiler: ConstraintCompiler) -> None:
    assert "'x' is not defined" in check(compiler, Constraint("gbnf", "root ::= x")).error


def test_lenient_schema_names_what_is_not_enforced(compiler: ConstraintCompiler) -> None:
    schema = {"type": "string", "format": "iban", "x-guidance": {"lenient": True}}
    result = check(compiler, Constraint("json_schema", json.dumps(schema)))
    assert result == CheckResult("", ("format 'iban'",))
