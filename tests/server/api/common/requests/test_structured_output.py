"""From fields of a body to a constraint, or to an error that names the field."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.types import Constraint
from server.api.common.requests.output_fields import GuidedFields, StructuredFields
from server.api.common.requests.parser import json_schema
from server.api.common.requests.structured_output import requested_constraint
from server.chat.request import RequestedConstraint
from server.errors import ApiError
from server.generation.request_context import AccessRecord, RequestContext
from support.fakes.engine import make_app


@pytest.fixture
def context() -> RequestContext:
    return RequestContext(make_app().state.ggserve, AccessRecord("id"))


class OutputFields(StructuredFields, GuidedFields):
    """As the requests of OpenAI's API have them."""


def requested(context: RequestContext, **fields: Any) -> RequestedConstraint | None:
    return requested_constraint(OutputFields.model_validate(fields), context)


@pytest.mark.parametrize(
    ("format", "param"),
    [
        ({"type": "json_object"}, "response_format"),
        ({"type": "json_object", "schema": {"type": "object"}}, "response_format.schema"),
        ({"type": "json_schema", "json_schema": {"schema": {}}}, "response_format.json_schema.schema"),
        ({"type": "regex", "pattern": "a"}, "response_format.pattern"),
        ({"type": "choice", "choices": ["a"]}, "response_format.choices"),
        ({"type": "grammar", "grammar": "x"}, "response_format.grammar"),
    ],
)
def test_constraint_names_the_field_that_holds_it(
    format: dict[str, Any], param: str, context: RequestContext
) -> None:
    constraint = requested(context, response_format=format)
    assert constraint is not None
    assert constraint.param == param
    assert context.warnings == []


@pytest.mark.parametrize(
    ("format", "param", "code"),
    [
        ({}, "response_format.type", "missing_field"),
        ({"type": "xml"}, "response_format.type", "invalid_value"),
        ({"type": "regex"}, "response_format.pattern", "missing_field"),
        ({"type": "regex", "pattern": 5}, "response_format.pattern", "invalid_value"),
        ({"type": "choice", "choices": []}, "response_format.choices", "invalid_value"),
        ({"type": "choice", "choices": ["a", 1]}, "response_format.choices", "invalid_value"),
        ({"type": "grammar", "grammar": "x", "syntax": "bnf"}, "response_format.syntax", "invalid_value"),
        ({"type": "json_schema", "json_schema": {}}, "response_format.json_schema.schema", "missing_field"),
        (
            {"type": "json_schema", "json_schema": {"schema": {}, "strict": 1}},
            "response_format.json_schema.strict",
            "invalid_value",
        ),
        ({"type": "json_object", "schema": []}, "response_format.schema", "invalid_value"),
    ],
)
def test_invalid_format_is_refused_by_its_field(
    format: dict[str, Any], param: str, code: str, context: RequestContext
) -> None:
    with pytest.raises(ApiError) as raised:
        requested(context, response_format=format)
    assert (raised.value.status_code, raised.value.param, raised.value.code) == (400, param, code)


def test_two_constraints_at_once_are_refused(context: RequestContext) -> None:
    with pytest.raises(ApiError, match="json_schema: cannot be combined with grammar"):
        requested(context, grammar="x", json_schema={})
    with pytest.raises(ApiError, match="guided_regex: cannot be combined with response_format"):
        requested(context, guided_regex="a", response_format={"type": "regex", "pattern": "b"})
    alone = requested(context, guided_regex="a", response_format={"type": "text"}, grammar="")
    assert alone == RequestedConstraint(Constraint("regex", "a"), "guided_regex")


def test_one_constraint_under_several_names_is_applied(context: RequestContext) -> None:
    fields = {"response_format": {"type": "regex", "pattern": "a"}, "guided_regex": "a", "regex": "a"}
    expected = RequestedConstraint(Constraint("regex", "a"), "response_format.pattern")
    assert requested(context, **fields) == expected
    with pytest.raises(ApiError, match="structured_outputs: cannot be combined with response_format"):
        requested(context, **fields, structured_outputs={"regex": "b"})


def test_fields_of_another_kind_have_no_effect(context: RequestContext) -> None:
    requested(context, response_format={"type": "regex", "pattern": "a", "choices": ["b"], "syntax": None})
    assert context.warnings == ["response_format.choices has no effect"]


def test_lenient_schema_keeps_its_own_options() -> None:
    def options(schema: dict[str, Any], *, lenient: bool) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(json_schema(schema, "x", lenient=lenient).text).get(
            "x-guidance", {}
        )
        return data

    own = {"lenient": False, "item_separator": ","}
    assert options({"type": "object", "x-guidance": own}, lenient=True).items() >= own.items()
    assert options({"type": "object"}, lenient=True)["lenient"] is True
    assert "lenient" not in options({"type": "object"}, lenient=False)
