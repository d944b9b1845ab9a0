"""What the output must match, of answers and tool calls: tried out before an engine sees it."""

from __future__ import annotations

from engine.exact_json import dumps
from engine.types import Constraint
from server.chat.chat_format import ChatFormat
from server.chat.request import ChatInput, RequestedConstraint
from server.chat.tool_calls.grammar import KINDS, answer_rule
from server.chat.tool_calls.tool_call_format import ToolOptions, UnsupportedSchema
from server.errors import ApiError, unsupported, wrong
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
    result = await _tried(requested, context)
    constraint, param = requested
    if result.error:
        raise wrong(param, result.error)
    if report:
        _warn_of_ignored(result, param, context)
    return constraint


def _warn_of_ignored(result: CheckResult, param: str, context: RequestContext) -> None:
    for keyword in result.not_enforced[:MAX_IGNORED]:
        context.warn(f"{param}: not enforced: {keyword}")


async def _tried(requested: RequestedConstraint, context: RequestContext) -> CheckResult:
    """Whether a constraint compiles for the model; 503 if too many others wait to be compiled.

    It is compiled in a process of its own, so that a hostile constraint stops nothing else.
    """
    known = context.state.derived[context.engine]
    if (checker := known.constraint_checker) is None:
        checker = known.constraint_checker = ConstraintChecker(context.engine.tokenizer)
    constraint, param = requested
    try:
        return await checker.check(constraint)
    except CheckerBusy:
        message = "too many output constraints are being compiled; try again later"
        raise ApiError(503, message, param=param, code="overloaded", retry_after=2) from None


async def output_constraint(
    chat: ChatInput, chat_format: ChatFormat, context: RequestContext
) -> tuple[ToolOptions | None, Constraint | None]:
    """The tools that may be called, and what the output of a conversation must match."""
    options = _tool_options(chat, chat_format, context)
    return options, await _constraint(chat, options, chat_format, context)


def _tool_options(chat: ChatInput, chat_format: ChatFormat, context: RequestContext) -> ToolOptions | None:
    """The tools that may be called."""
    choice = chat.tool_choice
    tools = tuple(tool for tool in chat.tools if choice.names is None or tool.name in choice.names)
    if choice.mode == "none" or not tools:
        return None
    parallel = chat.parallel_tool_calls
    if parallel is None:
        parallel = chat_format.capabilities.parallel_calls or not chat_format.capabilities.calls
    if chat.answer is None:
        return ToolOptions(tools, choice.mode == "required", parallel)
    constraint, param = chat.answer
    if choice.mode == "required":
        context.warn(f"{param} has no effect: a tool is called in any case")
        return ToolOptions(tools, True, parallel)
    if constraint.kind not in KINDS:
        raise unsupported(param, "cannot be combined with tools that may be called or not")
    return ToolOptions(tools, False, parallel, constraint)


async def _constraint(
    chat: ChatInput, options: ToolOptions | None, chat_format: ChatFormat, context: RequestContext
) -> Constraint | None:
    alone = None if chat.answer is None else await check_constraint(chat.answer, context)
    if options is None:
        framed = None if chat.answer is None else _framed(chat.answer, chat_format)
        return alone if framed is None else await check_constraint(framed, context, report=False)
    try:
        text = await context.in_thread(chat_format.call_format.grammar, options, chat_format.terminals)
        if text is None:
            return None
        constraint = Constraint("lark", text)
        result = await _tried(RequestedConstraint(constraint, "tools"), context)
        if not result.error:
            for schema in _schemas(chat, options) if result.not_enforced else ():
                _warn_of_ignored(await _tried(schema, context), schema.param, context)
            return constraint
        failure = wrong("tools", result.error)
    except UnsupportedSchema as error:
        failure = unsupported("tools", str(error))
    failure = await _fault_of_one(chat, options, context) or failure
    if options.required or options.answer is not None:
        raise failure
    context.warn(f"tools: the schemas of arguments are not enforced ({failure.message})")
    return None


async def _fault_of_one(chat: ChatInput, options: ToolOptions, context: RequestContext) -> ApiError | None:
    """Which of the tools that may be called is at fault, if it is the schema of one."""
    for schema in _schemas(chat, options):
        result = await _tried(schema, context)
        if result.error:
            return wrong(schema.param, result.error)
    return None


def _schemas(chat: ChatInput, options: ToolOptions) -> list[RequestedConstraint]:
    """Of the arguments of the tools that may be called."""
    return [
        RequestedConstraint(Constraint("json_schema", dumps(tool.schema)), f"tools[{i}].{chat.schema_field}")
        for i, tool in enumerate(chat.tools)
        if tool.name in options.names
    ]


def _framed(answer: RequestedConstraint, chat_format: ChatFormat) -> RequestedConstraint | None:
    """The constraint on the content within the format's frame; None: the format has no frame."""
    if answer.constraint.kind not in KINDS:
        return None
    text = chat_format.call_format.answer_grammar(answer_rule(answer.constraint), chat_format.terminals)
    return None if text is None else RequestedConstraint(Constraint("lark", text), answer.param)
