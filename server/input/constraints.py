"""What the text of an answer must match: from the fields that ask for it to a checked constraint."""

from __future__ import annotations

from typing import Any, NoReturn

from engine.constraint.json_schema import closed, dumps
from engine.errors import ConfigError
from engine.types import Constraint
from server.api.common.structured_fields import StructuredFields
from server.chat.request import RequestedConstraint
from server.dependencies import Engine, State
from server.errors import ApiError, bad_request
from server.sandbox.constraint_checker import CheckerBusy, ConstraintChecker

MAX_WARNINGS = 8
_KINDS = ("text", "json_object", "json_schema", "regex", "choice", "grammar")
_SYNTAXES = ("gbnf", "lark")
_NAMES: dict[type[Any], str] = {str: "a string", list: "a list", dict: "an object"}
_KNOWN = {  # fields of a response_format, by its type
    "text": (),
    "json_object": ("schema",),
    "json_schema": ("json_schema",),
    "regex": ("pattern",),
    "choice": ("choices",),
    "grammar": ("grammar", "syntax"),
}


async def checked(
    asked: RequestedConstraint | None, engine: Engine, state: State, warnings: list[str] | None = None
) -> Constraint | None:
    """The constraint, known to compile for the model; anything else is a 400 that names the field.

    It is tried out in a process of its own, so that nothing that a client sends can stop more than that. Adds
    to `warnings` what of it is not enforced.
    """
    if asked is None:
        return None
    checker = state.checkers.get(engine.name)
    if checker is None:
        checker = state.checkers[engine.name] = ConstraintChecker(engine.tokenizer)
    try:
        result = await checker.check(asked.constraint)
    except CheckerBusy:
        message = "too many constraints on outputs are being compiled; try again later"
        raise ApiError(503, message, param=asked.param, code="overloaded", retry_after=2) from None
    if result.error:
        raise bad_request(f"{asked.param}: {result.error}", asked.param, "invalid_value")
    if warnings is not None:
        warnings += [f"{asked.param}: not enforced: {what}" for what in result.not_enforced[:MAX_WARNINGS]]
    return asked.constraint


def asked_of(body: StructuredFields, warnings: list[str]) -> RequestedConstraint | None:
    """What a request asks for. Adds to `warnings` what of its fields has no effect."""
    found = [
        asked
        for asked in (_format(body.response_format, warnings), _grammar(body), _schema(body))
        if asked is not None
    ]
    if len(found) > 1:
        first, second = (asked.param.split(".")[0] for asked in found[:2])
        _wrong(second, f"cannot be combined with {first}")
    return found[0] if found else None


def _grammar(body: StructuredFields) -> RequestedConstraint | None:
    return RequestedConstraint(Constraint("gbnf", body.grammar), "grammar") if body.grammar else None


def _schema(body: StructuredFields) -> RequestedConstraint | None:
    if body.json_schema is None:
        return None
    if body.json_schema == {}:  # as llama-server has it
        return RequestedConstraint(Constraint("json_object"), "json_schema")
    return RequestedConstraint(_json_schema(body.json_schema, "json_schema"), "json_schema")


def _format(format: dict[str, Any] | None, warnings: list[str]) -> RequestedConstraint | None:
    if format is None:
        return None
    at, kind = "response_format", format.get("type")
    if kind is None:
        raise bad_request(f"{at}.type: is required", f"{at}.type", "missing_field")
    if kind not in _KINDS:
        _wrong(f"{at}.type", f"must be one of {', '.join(_KINDS)}")
    _unknown(format, ("type", *_KNOWN[kind]), at, warnings)
    match kind:
        case "text":
            return None
        case "json_object":
            schema = format.get("schema")
            if schema is None or schema == {}:
                return RequestedConstraint(Constraint("json_object"), at)
            return RequestedConstraint(_json_schema(schema, f"{at}.schema"), f"{at}.schema")
        case "json_schema":
            return named_schema(_given(format, "json_schema", dict, at), f"{at}.json_schema", warnings)
        case "regex":
            return RequestedConstraint(
                Constraint("regex", _given(format, "pattern", str, at)), f"{at}.pattern"
            )
        case "choice":
            choices = _given(format, "choices", list, at)
            if not choices or not all(isinstance(choice, str) for choice in choices):
                _wrong(f"{at}.choices", "must be a list of strings, at least one")
            return RequestedConstraint(
                Constraint("choice", _dumps(choices, f"{at}.choices")), f"{at}.choices"
            )
    syntax = format.get("syntax", "gbnf")
    if syntax not in _SYNTAXES:
        _wrong(f"{at}.syntax", f"must be one of {', '.join(_SYNTAXES)}")
    text = _given(format, "grammar", str, at)
    return RequestedConstraint(Constraint(syntax, text), f"{at}.grammar") if text else None


def named_schema(named: dict[str, Any], at: str, warnings: list[str]) -> RequestedConstraint:
    """Of `{name, description, schema, strict}`, which is the field `at`."""
    _unknown(named, ("name", "description", "schema", "strict"), at, warnings)
    for name, kind, what in (("name", str, "a string"), ("strict", bool, "true or false")):
        if not isinstance(named.get(name), kind | None):
            _wrong(f"{at}.{name}", f"must be {what}")
    if named.get("schema") is None:
        raise bad_request(f"{at}.schema: is required", f"{at}.schema", "missing_field")
    lenient = named.get("strict") is False
    return RequestedConstraint(_json_schema(named["schema"], f"{at}.schema", lenient=lenient), f"{at}.schema")


def _json_schema(schema: Any, param: str, *, lenient: bool = False) -> Constraint:
    """Closed. lenient: what cannot be enforced is left out (and told), not refused."""
    if not isinstance(schema, dict | bool):
        _wrong(param, "must be a JSON schema: an object")
    if lenient and isinstance(schema, dict):
        options = schema.get("x-guidance")
        schema = {**schema, "x-guidance": {"lenient": True, **(options if isinstance(options, dict) else {})}}
    return Constraint("json_schema", _dumps(closed(schema), param))


def _given(format: dict[str, Any], name: str, kind: type[Any], at: str) -> Any:
    value = format.get(name)
    if value is None:
        raise bad_request(f"{at}.{name}: is required", f"{at}.{name}", "missing_field")
    if not isinstance(value, kind):
        _wrong(f"{at}.{name}", f"must be {_NAMES[kind]}")
    return value


def _dumps(value: Any, param: str) -> str:
    try:
        return dumps(value)
    except ConfigError:
        _wrong(param, "is nested too deeply, or has numbers that are too long")


def _unknown(given: dict[str, Any], known: tuple[str, ...], at: str, warnings: list[str]) -> None:
    for name, value in given.items():
        if name not in known and value is not None and len(warnings) < 4 * MAX_WARNINGS:
            warnings.append(f"{at}.{name[:64]} has no effect")


def _wrong(param: str, what: str) -> NoReturn:
    raise bad_request(f"{param}: {what}", param, "invalid_value")
