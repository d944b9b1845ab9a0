"""How far a request travels through the server: which files it passes, and how often it comes back to one."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import server
from server.app import ROUTES, create_app
from server.registry.registry import ModelRegistry
from support.api.http import client, user
from support.fakes.engine import TEXT, FakeEngine, make_app, settings, tokenizer
from support.fakes.engine_client import make_client
from support.fakes.engine_process import PARALLEL
from support.tracing import traced, traced_threads
from support.waiting import until

pytestmark = pytest.mark.anyio
ROOT = Path(server.__file__).parent
TESTS = Path(__file__).parents[1]
OBSERVERS = ("metrics/", "http/middleware/", "logs.py")
SHARED = ("errors.py", "ids.py")
ROOMS = ("chat/", "worker/")
CONTEXT = "generation/request_context.py"
MAX_FILES, MAX_RETURNS = 15, 5
MAX_ALL = {"chat": 23, "chat, tools": 31}  # with what is inside chat/ and worker/, from the real client on
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": CITY}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY}}
MESSAGES_TOOL = {"name": "get_weather", "input_schema": CITY}
RESPONSES_TOOL = {"type": "function", "name": "get_weather", "parameters": CITY}
BLOCKS = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]


class Line:
    """The calls of one request, from its route's function to the last byte of the response.

    A file is *passed* when a function of it is called. Three kinds do not count: observers of every request
    (metrics, middleware, logs), the leaves that all packages share (errors, ids), and what chat/ and worker/
    call: of those count the files that are called from outside. The fake engine stands for the worker's
    client, so what it calls does not count either. `all_files` counts these two as well, where the real
    client runs.

    A *return* is a call of a file that another file called before: a file with k callers is come back to
    k - 1 times. Work in a thread is called by whoever hands it to `in_thread`. Repeating a call is no return
    (a stream calls its formatter for each delta), neither is what the event loop starts, nor the use of the
    request context, which the request carries.
    """

    def __init__(self) -> None:
        self.route: str | None = None  # the function from whose first call on calls are recorded
        self.calls: list[tuple[str | None, str, str]] = []  # caller, file, function
        self._frames: dict[int, FrameType] = {}  # keeps them alive, so that no id is used twice
        self._handed_over: dict[int, str | None] = {}  # by id of a thread's function: who calls it
        self._running = False
        self._others: set[asyncio.Task[Any]] = set()  # tasks of the application, which run beside the request

    def trace(self, frame: FrameType, event: str, _argument: object) -> None:
        file = _server_file(frame)
        if event != "call" or file is None or id(frame) in self._frames:
            return  # a coroutine that is resumed was called before
        task = _current_task()
        if not self._running and frame.f_code.co_name == self.route:
            self._running = True
            self._others = asyncio.all_tasks() - {task}
        if not self._running or task in self._others:
            return
        self._frames[id(frame)] = frame
        caller = frame.f_back
        if caller is not None and caller.f_code.co_filename.startswith(str(TESTS / "support")):
            return
        while caller is not None and _server_file(caller) is None:
            caller = caller.f_back
        by = caller and _server_file(caller)
        if caller is not None and caller.f_code.co_name == "_without_stop_iteration":
            by = self._handed_over[id(caller.f_locals["function"])]
        function = frame.f_code.co_qualname
        if function == "RequestContext.in_thread":
            self._handed_over[id(frame.f_locals["function"])] = by
        self.calls.append((by, file, function))

    def steps(self) -> dict[tuple[str | None, str], list[str]]:
        """(caller, file) → functions, in order of the first call."""
        steps: dict[tuple[str | None, str], list[str]] = defaultdict(list)
        for caller, file, function in self.calls:
            inside = caller is not None and caller.startswith(ROOMS)
            ignored = file.startswith(OBSERVERS) or file in SHARED
            if caller == file or inside or ignored or (caller or "").startswith(OBSERVERS):
                continue
            if function not in steps[caller, file]:
                steps[caller, file].append(function)
        return steps

    def files(self) -> list[str]:
        return list(dict.fromkeys(file for _, file in self.steps()))

    def all_files(self) -> list[str]:
        """All files of which a function is called, whoever calls it; without observers and shared leaves."""
        files = dict.fromkeys(file for by, file, _ in self.calls if not (by or "").startswith(OBSERVERS))
        return [file for file in files if not file.startswith(OBSERVERS) and file not in SHARED]

    def returns(self) -> list[str]:
        """The files that are come back to, once for each further caller."""
        callers: dict[str, set[str]] = defaultdict(set)
        for caller, file in self.steps():
            if caller is not None and file != CONTEXT:
                callers[file].add(caller)
        return [file for file, by in callers.items() for _ in range(len(by) - 1)]

    def __str__(self) -> str:
        lines = [f"{by or 'event loop'} -> {to}: {', '.join(f)}" for (by, to), f in self.steps().items()]
        return "\n".join([*lines, f"{len(self.files())} files", f"returns: {', '.join(self.returns())}"])


def _current_task() -> asyncio.Task[Any] | None:
    """None in a thread without an event loop."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def _server_file(frame: FrameType) -> str | None:
    name = frame.f_code.co_filename
    return name.removeprefix(f"{ROOT}/") if name.startswith(f"{ROOT}/") else None


CHAT = ("/v1/chat/completions", "chat_completions")
MESSAGES = ("/v1/messages", "create_message")
RESPONSES = ("/v1/responses", "create_response")
OLLAMA = ("/api/chat", "ollama_chat")
CASES = {
    "chat": (*CHAT, {"messages": user("hi")}),
    "chat, tools": (*CHAT, {"messages": user("hi"), "tools": [TOOL]}),
    "chat, response_format": (*CHAT, {"messages": user("hi"), "response_format": FORMAT}),
    "messages": (*MESSAGES, {"messages": BLOCKS, "max_tokens": 90}),
    "messages, tools": (*MESSAGES, {"messages": BLOCKS, "max_tokens": 90, "tools": [MESSAGES_TOOL]}),
    "responses": (*RESPONSES, {"input": user("hi")}),
    "responses, tools": (*RESPONSES, {"input": user("hi"), "tools": [RESPONSES_TOOL], "store": False}),
    "responses, tools, stored": (*RESPONSES, {"input": user("hi"), "tools": [RESPONSES_TOOL]}),
    "ollama": (*OLLAMA, {"model": "stories", "messages": user("hi")}),
    "ollama, tools": (*OLLAMA, {"model": "stories", "messages": user("hi"), "tools": [TOOL]}),
    "/v1/completions": ("/v1/completions", "completions", {"prompt": "hi"}),
    "/completion": ("/completion", "completion", {"prompt": "hi"}),
}
CALL = '{"tool_calls": [{"name": "get_weather", "arguments": {"city": "Rome"}}]}'


async def run_line(app: Any, case: str, **fields: Any) -> Line:
    """The line of a request, which is not the first of its kind."""
    path, route, body = CASES[case]
    line = Line()
    with traced_threads(line.trace):
        async with client(app) as http:
            for model in app.state.ggserve.registry.models.values():
                await until(lambda model=model: model.engine is not None and model.engine.state == "ready")
            first = await http.post(path, json={**body, **fields, "stream": False})
            assert first.status_code == 200, first.text  # what is done once per model is not the request's
            await until(lambda: all("app" in vars(each) for each in ROUTES))  # nor is this
            line.route = route
            with traced(line.trace):
                response = await http.post(path, json={**body, **fields})
    assert response.status_code == 200, response.text
    assert line.files()[0].endswith("routes.py")
    return line


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("case", CASES)
async def test_a_request_passes_few_files_and_seldom_returns(case, stream):
    """With tools, the model calls one."""
    engine = FakeEngine(CALL if "tools" in case else TEXT)
    line = await run_line(make_app(engine), case, stream=stream)
    assert len(engine.seen) == 2
    most = MAX_FILES + ("stored" in case)  # what is kept for later requests is not only on the way
    assert len(line.files()) <= most, f"too many files:\n{line}"
    assert len(line.returns()) <= MAX_RETURNS, f"too many returns:\n{line}"


@pytest.mark.parametrize(("case", "most"), MAX_ALL.items())
async def test_a_chat_passes_few_files_in_all(case, most):
    """Through the real client to an engine process, chat/ and worker/ from the inside."""
    worker = make_client(load_tokenizer=lambda path: tokenizer())
    app = create_app(settings(parallel=PARALLEL), ModelRegistry.of({"fake": worker}))
    files = (await run_line(app, case, stream=True, max_tokens=4)).all_files()
    assert {"chat/prompt.py", "worker/client.py", "worker/supervision/child.py"} <= set(files)
    assert len(files) <= most, f"{len(files)} files:\n" + "\n".join(files)
