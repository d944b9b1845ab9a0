"""How many records hold a chat request's data on its way to the engine, and the tokens on their way back."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from types import FrameType, FunctionType, MethodType
from typing import Any

import msgspec
import pydantic
import pytest

import engine
import server
from engine.types import Request as EngineRequest
from engine.types import StepOutput
from server.api.openai.chat.schema import ChatRequest
from server.app import create_app
from server.chat.output import OutputDelta
from server.chat.prompt import Prompt
from server.chat.request import ChatInput
from server.registry.registry import ModelRegistry
from support.api.http import CHAT, client, user
from support.fakes.engine import settings, tokenizer
from support.fakes.engine_client import make_client
from support.fakes.engine_process import PARALLEL, text_of
from support.quick import every
from support.tracing import traced, traced_threads

pytestmark = pytest.mark.anyio
PACKAGES = tuple(f"{Path(package.__file__).parent}/" for package in (engine, server))
WORD = " Princess"  # one token
MAX_ITEMS = 1000  # larger containers are vocabularies, not data of these small requests


class Records:
    """The record classes of server/ and engine/ of which an instance holds the data sought.

    A *record* is a class that is there to hold data: a dataclass, pydantic model, msgspec.Struct or named
    tuple, and any other class without a method of its own but special ones. Private ones count, parts of
    others count, those in which data crosses to and from the engine process count. Objects that act on data
    (a job, a stream, a formatter, an HTTP response) are no representations; test_request_line.py counts the
    files that they are in. The tokens come from a process of its own, through the real client.

    A record *holds* the data if one of its attributes is or contains it, also within lists, dictionaries,
    partial functions, or further records: a wrapper counts. Looked at is every argument, local variable and
    result of every function of the two packages that runs meanwhile in the server process, in all threads,
    and every attribute of an object whose method runs.
    """

    def __init__(self, texts: list[str], numbers: list[float]) -> None:
        """The data: all that has one of these texts in it, or equals one of these numbers."""
        self.texts, self.numbers = texts, set(numbers)
        self.classes: dict[type, None] = {}  # in the order of their first sight

    def trace(self, frame: FrameType, event: str, value: Any) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGES):
            return None
        if event in ("call", "return"):
            seen: dict[int, bool] = {}
            self._holds([*frame.f_locals.values(), value], seen)
            actor = frame.f_locals.get("self")
            self._holds(list(getattr(actor, "__dict__", {}).values()), seen)
        frame.f_trace_lines = False
        return self.trace

    def _holds(self, value: Any, seen: dict[int, bool]) -> bool:
        if isinstance(value, str):
            return any(text in value for text in self.texts)
        if isinstance(value, bytes | bytearray):
            return any(text.encode() in value for text in self.texts)
        if isinstance(value, int | float):
            return not isinstance(value, bool) and value in self.numbers
        if id(value) in seen:
            return seen[id(value)]
        seen[id(value)] = False
        record = is_record(type(value))
        parts = parts_of(value) if record or not is_ours(type(value)) else []
        held = [part for part in parts if self._holds(part, seen)]
        if held and record:
            self.classes[type(value)] = None
        seen[id(value)] = bool(held)
        return bool(held)

    def __str__(self) -> str:
        return "\n".join(f"{cls.__module__}.{cls.__qualname__}" for cls in self.classes)


def is_ours(cls: type) -> bool:
    return cls.__module__.partition(".")[0] in ("engine", "server")


def is_record(cls: type) -> bool:
    if not is_ours(cls):
        return False
    if issubclass(cls, msgspec.Struct | pydantic.BaseModel) or dataclasses.is_dataclass(cls):
        return True
    if not all(is_ours(base) for base in cls.__mro__[:-1]):
        return issubclass(cls, tuple)
    methods = [name for name, value in vars(cls).items() if isinstance(value, FunctionType)]
    return all(name.startswith("__") for name in methods)


def parts_of(value: Any) -> list[Any]:
    match value:
        case dict():
            parts = [*value.keys(), *value.values()]
        case list() | tuple() | set() | frozenset():
            parts = list(value)
        case partial():
            parts = [value.func, *value.args, *value.keywords.values()]
        case MethodType():
            parts = [value.__self__]
        case FunctionType():
            parts = [cell.cell_contents for cell in value.__closure__ or ()]
        case msgspec.Struct():
            parts = [getattr(value, name) for name in value.__struct_fields__]
        case pydantic.BaseModel():
            parts = [vars(value), value.model_extra]
        case _ if is_ours(type(value)):
            parts = list(getattr(value, "__dict__", {}).values())
            parts += [getattr(value, name, None) for name in getattr(value, "__slots__", ())]
        case _:
            parts = []
    return parts if len(parts) <= MAX_ITEMS else []


@pytest.mark.parametrize("stream", every(2, [True, False]))
async def test_a_plain_chat_request_passes_few_records(stream):
    """Plain: messages, sampling parameters, stop strings; no tools, constraint or log-probabilities."""
    body = {
        "messages": user(f"a{WORD}"),
        "temperature": 0.328125,
        "stop": ["xylophone"],
        "max_tokens": 4,
        "stream": stream,
    }
    word_id = tokenizer().encode(WORD, add_special=False)[-1]
    inward = Records([WORD, "xylophone"], [0.328125, word_id])
    outward = Records([], [])
    requests = []
    worker = make_client(load_tokenizer=lambda path: tokenizer())
    generate = worker.generate
    worker.generate = lambda request: requests.append(request) or generate(request)
    app = create_app(settings(parallel=PARALLEL), ModelRegistry.of({"fake": worker}))
    with traced_threads(inward.trace):
        async with client(app) as http:
            await worker.wait_loaded()
            with traced(inward.trace):
                response = await http.post(CHAT, json=body)
            assert response.status_code == 200, response.text
            outward.numbers = set(text_of(requests[0].prompt, 4))  # the same for the same prompt
            outward.texts = [text for id in outward.numbers if len(text := tokenizer().decode([id])) > 4]
            with traced(outward.trace):
                response = await http.post(CHAT, json=body)
    assert outward.texts
    assert all(text in response.text for text in outward.texts)
    assert {ChatRequest, ChatInput, EngineRequest} <= inward.classes.keys()
    assert {StepOutput, OutputDelta} <= outward.classes.keys()
    assert len(inward.classes) <= 9, f"too many records on the way in:\n{inward}"
    assert len(outward.classes) <= 4, f"too many records on the way out:\n{outward}"


def test_a_record_within_others_counts_with_all_that_wrap_it():
    prompt = Prompt(tokens=[7], echo="zebra")
    held = Records(["zebra"], [])
    assert held._holds({"a": [partial(print, prompt)]}, {})
    assert list(held.classes) == [Prompt]
    assert not Records(["zebra"], [8])._holds([Prompt(tokens=[7]), "horse", True], {})
