"""Output constraints, tried out before an engine sees them."""

from __future__ import annotations

from engine.types import Constraint
from server.chat.request import RequestedConstraint
from server.errors import ApiError, wrong
from server.generation.request_context import RequestContext
from server.sandbox.constraint_checker import CheckerBusy, ConstraintChecker
from server.sandbox.constraint_child import CheckResult

MAX_IGNORED = 8  # keywords of a schema that are reported as not enforced


async def check_constraint(
    requested: RequestedConstraint, context: RequestContext, *, report: bool = True
) -> Constraint:
    """The constraint, known to compile for the model; anything else is a 400 that names the field.

    report: warn of what is not enforced.
    """
    result = await tried(requested, context)
    constraint, param = requested
    if result.error:
        raise wrong(param, result.error)
    if report:
        warn_of_ignored(result, param, context)
    return constraint


def warn_of_ignored(result: CheckResult, param: str, context: RequestContext) -> None:
    for keyword in result.not_enforced[:MAX_IGNORED]:
        context.warn(f"{param}: not enforced: {keyword}")


async def tried(requested: RequestedConstraint, context: RequestContext) -> CheckResult:
    """Whether a constraint compiles for the model; 503 if too many others wait to be compiled.

    It is compiled in a process of its own, so that a hostile constraint stops nothing else.
    """
    engine, checkers = context.engine, context.state.constraint_checkers
    checker = checkers.get(engine.name)
    if checker is None:
        checker = checkers[engine.name] = ConstraintChecker(engine.tokenizer)
    constraint, param = requested
    try:
        return await checker.check(constraint)
    except CheckerBusy:
        message = "too many output constraints are being compiled; try again later"
        raise ApiError(503, message, param=param, code="overloaded", retry_after=2) from None
