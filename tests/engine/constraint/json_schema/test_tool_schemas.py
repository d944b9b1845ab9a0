"""200 schemas as tools write them: each enforced, or refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft4Validator, Draft7Validator, Draft202012Validator
from jsonschema.exceptions import SchemaError

from engine.errors import ConfigError
from support.api.tool_schemas import NONE, Case, hand, openapi, pydantic, zod
from support.quick import every
from support.references.json_walk import accepts_value, matcher_of, parsed, random_text

CASES = {
    f"{module.__name__.rpartition('.')[2]}: {name}": case
    for module in (pydantic, zod, openapi, hand)
    for name, case in module.CASES.items()
}
ENFORCED = {name: case for name, case in CASES.items() if not case.refused}


def test_tool_schemas_are_numerous() -> None:
    assert len(CASES) >= 200
    assert len(ENFORCED) > 170


def validator_of(schema: Any) -> Any:
    """Of the newest draft in which it is a schema."""
    for draft in (Draft202012Validator, Draft7Validator, Draft4Validator):
        try:
            draft.check_schema(schema)
        except SchemaError:
            continue
        return draft(schema)
    return Draft202012Validator(schema)


@pytest.mark.parametrize("name", every(4, ENFORCED))
def test_tool_schema_when_supported_is_enforced(name: str) -> None:
    case = ENFORCED[name]
    validator = validator_of(case.schema)
    matcher = matcher_of(case.schema)
    if case.valid is not NONE:
        assert accepts_value(matcher, case.valid)
        assert validator.is_valid(case.valid)
    if case.invalid is not NONE:
        assert not accepts_value(matcher, case.invalid)
    ended = 0
    for seed in range(6):
        text = random_text(matcher, seed)
        if text is not None:
            ended += 1
            parsed(text)
            validator.validate(json.loads(text))
    assert ended


@pytest.mark.parametrize("case", [pytest.param(c, id=n) for n, c in CASES.items() if c.refused])
def test_tool_schema_when_unsupported_is_refused(case: Case) -> None:
    with pytest.raises(ConfigError) as raised:
        matcher_of(case.schema)
    assert case.refused in str(raised.value)
    assert "\n" not in str(raised.value)
