"""Constraints on outputs: what a conversation asks for, and a trial of it before an engine sees it."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from engine.constraint.compiler import MAX_BYTES, vocabulary_of
from engine.exact_json import dumps
from engine.types import Constraint
from server.chat.request import ChatInput, RequestedConstraint
from server.chat.tool_calls.tool_call_format import ToolOptions, UnsupportedSchema
from server.errors import ApiError, unsupported, wrong
from server.generation.request_context import RequestContext
from server.sandbox.constraint_child import CPU_S, CheckResult
from server.sandbox.process import ChildDied, ChildTimeout, SandboxProcess, module_command

MAX_IGNORED = 8  # keywords of a schema that are reported as not enforced
TIMEOUT_S = 30.0  # for one constraint, on a machine that has other work to do
MAX_WAITING = 16  # different constraints
MAX_QUEUED = 64  # callers with further ones
QUEUE_S = 10.0  # that they wait at most
_CACHE_SIZE = 512  # results


async def check_with_tools(
    chat: ChatInput, tools: ToolOptions, constraint: Constraint | UnsupportedSchema, context: RequestContext
) -> Constraint | None:
    """The constraint on an output that may call tools; None: with a warning, that cannot be enforced.

    constraint: what the format makes of the tools, or why it cannot. Raises ApiError where it must be
    enforced.
    """
    if isinstance(constraint, UnsupportedSchema):
        failure = unsupported("tools", str(constraint))
    else:
        result = await _compiled(RequestedConstraint(constraint, "tools"), context)
        if not result.error:
            for schema in _schemas(chat, tools) if result.not_enforced else ():
                _warn_of_ignored(await _compiled(schema, context), schema.param, context)
            return constraint
        failure = wrong("tools", result.error)
    for schema in _schemas(chat, tools):  # one of them may be at fault
        result = await _compiled(schema, context)
        if result.error:
            failure = wrong(schema.param, result.error)
            break
    if tools.required or tools.answer is not None:
        raise failure
    context.warn(f"tools: the schemas of arguments are not enforced ({failure.message})")
    return None


def _schemas(chat: ChatInput, tools: ToolOptions) -> Iterator[RequestedConstraint]:
    """The argument schemas of the tools."""
    for tool in tools.tools:
        constraint = Constraint("json_schema", dumps(tool.schema))
        yield RequestedConstraint(constraint, f"{tool.param}.{chat.schema_field}")


async def check_constraint(
    requested: RequestedConstraint, context: RequestContext, *, report: bool = True
) -> Constraint:
    """The constraint, known to compile for the model. Any other is a 400 that names the field.

    report: warn about what is not enforced.
    """
    result = await _compiled(requested, context)
    constraint, param = requested
    if result.error:
        raise wrong(param, result.error)
    if report:
        _warn_of_ignored(result, param, context)
    return constraint


async def _compiled(requested: RequestedConstraint, context: RequestContext) -> CheckResult:
    """Whether a constraint compiles for the model, tried in a separate process so that a hostile one does no
    harm elsewhere. Raises ApiError (503) if too many others are waiting.
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


def _warn_of_ignored(result: CheckResult, param: str, context: RequestContext) -> None:
    for keyword in result.not_enforced[:MAX_IGNORED]:
        context.warn(f"{param}: not enforced: {keyword}")


class CheckerBusy(Exception):
    """Too many constraints are waiting to be checked."""


class ConstraintChecker:
    """Checks whether constraints compile for a model. Its process is started by the first check.

    tokenizer: the model's. command: run in place of `server.sandbox.constraint_child`.
    """

    def __init__(self, tokenizer: Any, command: Sequence[str] | None = None) -> None:
        self._tokenizer = tokenizer
        self._command = command or module_command("server.sandbox.constraint_child")
        self._thread = ThreadPoolExecutor(1, "ggserve-grammar")
        self._running: dict[bytes, asyncio.Task[CheckResult]] = {}  # and those that wait for the thread
        self._n_queued = 0
        self._cache: OrderedDict[bytes, CheckResult] = OrderedDict()
        self._process: SandboxProcess | None = None
        self._closed = False

    async def check(self, constraint: Constraint) -> CheckResult:
        """Whether a constraint compiles. Raises CheckerBusy; RuntimeError if the process cannot be started.

        Callers with the same constraint share one compilation, which continues if one of them is cancelled.
        """
        if len(constraint.text) > MAX_BYTES:
            message = f"{len(constraint.text)} characters are too many; at most {MAX_BYTES} are compiled"
            return CheckResult(message)
        text = constraint.text.encode("utf-8", "surrogatepass")
        key = hashlib.sha256(constraint.kind.encode() + b"\0" + text).digest()
        deadline = asyncio.get_running_loop().time() + QUEUE_S
        while True:
            cached = self._cache.get(key)
            if cached is not None:
                self._cache.move_to_end(key)
                return cached
            task = self._running.get(key)
            if task is None and len(self._running) < MAX_WAITING:
                task = self._running[key] = asyncio.create_task(self._run(key, constraint))
            if task is not None:
                return await asyncio.shield(task)
            await self._wait_for_one(deadline)

    async def _wait_for_one(self, deadline: float) -> None:
        """Wait until a check is done. Raises CheckerBusy."""
        left_s = deadline - asyncio.get_running_loop().time()
        if self._n_queued >= MAX_QUEUED or left_s <= 0:
            raise CheckerBusy
        self._n_queued += 1
        try:
            await asyncio.wait(self._running.values(), timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._n_queued -= 1

    async def _run(self, key: bytes, constraint: Constraint) -> CheckResult:
        try:
            loop = asyncio.get_running_loop()
            result, final = await loop.run_in_executor(self._thread, self._check, constraint)
        finally:
            del self._running[key]
        if final:
            self._cache[key] = result
            while len(self._cache) > _CACHE_SIZE:
                self._cache.popitem(last=False)
        return result

    def close(self) -> None:
        """End the process. Waiting constraints are refused."""
        self._closed = True
        if self._process is not None:
            self._process.kill()
        self._thread.shutdown(wait=False, cancel_futures=True)

    # --- in the thread

    def _check(self, constraint: Constraint) -> tuple[CheckResult, bool]:
        """The result, and whether a second try would give the same one."""
        try:
            message = msgspec.msgpack.encode(constraint)
        except UnicodeEncodeError:
            return CheckResult("unpaired surrogates are not text"), True
        if self._process is None:
            vocabulary = msgspec.msgpack.encode(vocabulary_of(self._tokenizer))
            self._process = SandboxProcess(self._command, setup=vocabulary)
        try:
            return msgspec.msgpack.decode(self._process.request(message, TIMEOUT_S), type=CheckResult), True
        except ChildTimeout:
            return CheckResult("takes too long to compile"), False
        except ChildDied as death:
            if death.cpu_limit:
                return CheckResult(f"takes more than {CPU_S:g} s of processor time to compile"), True
            text = "cannot be compiled: it takes too much memory, or crashes the compiler"
            return CheckResult(text), not self._closed
