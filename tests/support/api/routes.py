"""The routes as the application describes them, so that a test of all of them meets a new one by itself."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path as FilePath
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import httpx
import msgspec

from server.api.anthropic.errors import ERRORS as ANTHROPIC
from server.api.ollama.formatter import ERRORS as OLLAMA
from server.api.openai.conversations.store import ConversationStore, StoredConversation
from server.api.openai.responses.store import ResponseStore
from server.api.openai.stores import Stores
from server.models import catalog
from server.models.progress import Progress
from server.models.resolver import Pulling
from server.models.stored import StoredModel
from support.fakes.engine import FakeEngine, make_app

Path = tuple[str | int, ...]
JSON = {"content-type": "application/json"}
CONVERSATION = "conv_0123456789abcdef01234567"


@cache
def document() -> dict[str, Any]:
    """/openapi.json."""
    description: dict[str, Any] = make_app().openapi()
    return description


def resolved(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """A schema in place of a reference to it."""
    while "$ref" in schema:
        schema = document()["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    return schema


def branches(schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What a value may be, one schema for each kind."""
    schema = resolved(schema)
    for word in ("anyOf", "oneOf"):
        if word in schema:
            return [branch for part in schema[word] for branch in branches(part)]
    return [schema]


KINDS = {str: "string", int: "integer", float: "number", bool: "boolean", list: "array", dict: "object"}


def kind_of(value: object) -> str:
    return "null" if value is None else KINDS[type(value)]


def kinds(schema: Mapping[str, Any]) -> set[str] | None:
    """The JSON types that a value may have. None: any."""
    collected: set[str] = set()
    for branch in branches(schema):
        if "enum" in branch:
            collected |= {kind_of(value) for value in branch["enum"]}
        elif "const" in branch:
            collected.add(kind_of(branch["const"]))
        elif "type" in branch:
            types = branch["type"]
            collected |= {types} if isinstance(types, str) else set(types)
        else:
            return None
    return collected | {"integer"} if "number" in collected else collected


def bounds(schema: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """The least and the greatest number that a schema takes; None where it names none."""
    for branch in branches(schema):
        if branch.get("type") in ("integer", "number"):
            return branch.get("minimum"), branch.get("maximum")
    return None, None


def constants(schema: Mapping[str, Any]) -> set[Any]:
    """Single values that a schema takes beside its bounds, such as -1 for no limit."""
    return {branch["const"] for branch in branches(schema) if "const" in branch}


def name_of(path: Path) -> str:
    """("messages", 0, "role") → messages[0].role"""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def placed(value: Any, path: Path, new: Any) -> Any:
    """A copy of a JSON value with another one at a place in it."""
    if not path:
        return new
    changed = copy.copy(value)
    old = value[path[0]] if isinstance(path[0], int) or path[0] in value else None
    changed[path[0]] = placed(old, path[1:], new)
    return changed


@dataclass(frozen=True)
class Field:
    """One field of a request, at any depth, and a sound body that holds it."""

    route: Route
    path: Path
    schema: Mapping[str, Any]
    around: Any  # an example of the field of the body that it is in, or is

    @property
    def example(self) -> Any:
        value = self.around
        for part in self.path[1:]:
            value = value[part]
        return value

    @property
    def name(self) -> str:
        """As errors name it."""
        return name_of(self.path)

    @property
    def names(self) -> set[str]:
        """It, and the lists that it is in: what an error about it may name."""
        lists = [self.path[:i] for i, part in enumerate(self.path) if isinstance(part, int)]
        return {name_of(path) for path in (self.path, *lists)}

    @property
    def top(self) -> str:
        return str(self.path[0])

    def body(self, value: Any) -> dict[str, Any]:
        """The route's body with this value in the field."""
        return {**self.route.body(), self.top: placed(self.around, self.path[1:], value)}

    def __str__(self) -> str:
        return f"{self.route}-{self.name}"


def example(schema: Mapping[str, Any]) -> Any:
    """The example of a field, which every field has."""
    examples = schema.get("examples") or resolved(schema).get("examples")
    if examples:
        return examples[0]
    return schema["const"]


@dataclass(frozen=True)
class Route:
    method: str
    path: str

    @property
    def operation(self) -> Mapping[str, Any]:
        actual: Mapping[str, Any] = document()["paths"][self.path][self.method.lower()]
        return actual

    @property
    def url(self) -> str:
        """With an example in the place of each parameter that is required."""
        path, query = self.path, []
        for parameter in self.operation.get("parameters", ()):
            value = str(example({**parameter, **parameter["schema"]}) if parameter["required"] else "")
            if parameter["in"] == "path":
                path = path.replace(f"{{{parameter['name']}}}", value)
            elif parameter["in"] == "query" and value:
                query.append(f"{parameter['name']}={value}")
        return path + ("?" + "&".join(query) if query else "")

    @property
    def schema(self) -> Mapping[str, Any]:
        actual = branches(self.operation["requestBody"]["content"]["application/json"]["schema"])
        return next(branch for branch in actual if branch.get("type") == "object")

    @property
    def needs_body(self) -> bool:
        return bool(self.operation["requestBody"].get("required"))

    @property
    def fields(self) -> Mapping[str, Any]:
        properties: Mapping[str, Any] = self.schema.get("properties", {})
        return properties

    @property
    def takes_json(self) -> bool:
        return "requestBody" in self.operation

    @property
    def takes_object(self) -> bool:
        """Whether its body is a JSON object; that of POST /lora-adapters is a list (see its own tests)."""
        if not self.takes_json:
            return False
        content = self.operation["requestBody"]["content"]["application/json"]
        return "object" in (kinds(content["schema"]) or {"object"})

    @property
    def generates(self) -> bool:
        """Whether an engine is asked for tokens."""
        return self.takes_object and least()[self][1]

    def body(self) -> dict[str, Any]:
        """The least that is a sound request: the examples of what is required."""
        return copy.deepcopy(least()[self][0])

    def all_fields(self) -> Iterator[Field]:
        for name, schema in self.fields.items():
            yield from self._below(Field(self, (name,), schema, example(schema)))

    def _below(self, field: Field) -> Iterator[Field]:
        yield field
        value, actual = field.example, branches(field.schema)
        if isinstance(value, dict):
            for name, inner in {k: v for b in actual for k, v in b.get("properties", {}).items()}.items():
                if name in value or inner.get("examples"):
                    values = value[name] if name in value else example(inner)
                    around = placed(field.around, (*field.path[1:], name), values)
                    yield from self._below(Field(self, (*field.path, name), inner, around))
        elif isinstance(value, list) and value:
            items = [branch["items"] for branch in actual if "items" in branch]
            if items:
                yield from self._below(Field(self, (*field.path, 0), {"anyOf": items}, field.around))

    def __str__(self) -> str:
        return self.path


def routes() -> list[Route]:
    return [Route(m.upper(), path) for path, item in document()["paths"].items() for m in item]


def every_path(app: Any) -> set[tuple[str, str]]:
    """Every method and path that the application answers to, from the tree that it routes by."""

    def walk(parent: Any) -> Iterator[tuple[str, str]]:
        for route in parent.routes:
            if hasattr(route, "methods"):
                yield from ((method, route.path) for method in route.methods)
            else:
                yield from walk(getattr(route, "original_router", route))

    return set(walk(app))


POSTS = [route for route in routes() if route.takes_object]


class Planned:
    """A process of `ggserve info --plan` that was quick."""

    returncode = 0

    async def communicate(self) -> tuple[bytes, bytes]:
        return b'{"fits": true}', b""


class Ask:
    """A client that blocks, so that hypothesis can call it and shrink what fails."""

    def __init__(
        self,
        runner: asyncio.Runner,
        http: httpx.AsyncClient,
        engine: FakeEngine,
        conversations: ConversationStore,
    ) -> None:
        self._runner, self._http, self.engine = runner, http, engine
        self.conversations = conversations
        self.commands: list[tuple[str, ...]] = []  # processes that were started

    def pull(self, name: str, pulling: Pulling) -> None:
        """A download that was quick, of what can be one."""
        catalog.to_pull(name)
        self.commands.append(("pull", name))
        pulling.report(Progress("downloading", "x.gguf", 5, 5, "0" * 64))

    def delete(self, name: str) -> None:
        self.commands.append(("delete", name))

    async def process(self, *command: str, **options: Any) -> Planned:
        assert not any("\0" in word for word in command), command  # the system would not take it
        self.commands.append(command)
        return Planned()

    @property
    def work(self) -> list[Any]:
        """Everything that the requests so far led to."""
        return [*self.engine.seen, *self.engine.works, *self.commands]

    def forget(self) -> None:
        for actual in (self.engine.seen, self.engine.works, self.commands):
            actual.clear()
        for slot in self.engine.slots:
            slot.keep([])

    def __call__(
        self, route: Route, body: Any = None, *, content: bytes | None = None, headers: Any = JSON
    ) -> httpx.Response:
        """Send a body, as JSON or as it is. The conversation of the examples is there, and empty."""
        with_example(self.conversations)
        if content is None and route.takes_json:
            content = json.dumps(body).encode()  # lone surrogates come out as escapes
        return self.request(
            route.method, route.url, content=content, headers=headers if route.takes_json else {}
        )

    def request(self, method: str, url: Any, **options: Any) -> httpx.Response:
        return self._runner.run(self._http.request(method, url, **options))


def with_example(store: ConversationStore) -> None:
    """Put the conversation into a store whose id is the example of the routes."""
    if (before := store.get(CONVERSATION, None)) is not None:
        store.remove(before)
    assert store.update(StoredConversation(CONVERSATION, None, 0, {}))


def able_engine(*arguments: Any, **options: Any) -> FakeEngine:
    """A fake engine whose model has what any route asks of one: it fills in the middle, and it scores."""
    engine = FakeEngine(*arguments, **{"step": 64, **options})  # a whole answer in one step: quick
    engine.tokenizer = copy.copy(engine.tokenizer)
    for i, name in enumerate(("pre", "suf", "mid", "rep", "sep")):
        setattr(engine.tokenizer, f"fim_{name}_id", 2000 + i)
    assert engine.info is not None
    engine.info["n_scores"] = 1
    return engine


def stored(name: str) -> StoredModel:
    """A model of that name, which is on this machine."""
    return StoredModel(name, "hub", FilePath("x.gguf"), 5, None, 0.0)


@contextmanager
def asking(engine: FakeEngine | None = None, **settings: Any) -> Iterator[Ask]:
    """The application with a fake engine, without a socket."""
    engine = engine or able_engine()
    with TemporaryDirectory() as folder, asyncio.Runner() as runner:
        app = make_app(engine, **{"slot_save_path": folder, "allow_pull": True, **settings})
        lifespan = app.router.lifespan_context(app)
        runner.run(lifespan.__aenter__())
        transport = httpx.ASGITransport(app)
        http = httpx.AsyncClient(transport=transport, base_url="http://localhost")
        stores = Stores(ResponseStore(256, 3600.0, 64 << 20), ConversationStore(256, 3600.0, 64 << 20))
        app.state.openai_stores = stores
        ask = Ask(runner, http, engine, stores.conversations)
        try:
            with (
                patch("asyncio.create_subprocess_exec", ask.process),
                patch.multiple(catalog, pull=ask.pull, delete=ask.delete, find=stored),
            ):
                yield ask
        finally:
            runner.run(http.aclose())
            runner.run(lifespan.__aexit__(None, None, None))


def refusal(response: httpx.Response, route: Route | str, *statuses: int) -> dict[str, Any]:
    """The error of a response in the shape of the route's API: `message`, `type`, `param`, `code`.

    Anthropic's and Ollama's have no `param`: their messages begin with the field's name. Ollama's is nothing
    but a message.
    """
    reported = response.request.content[:300], response.status_code, response.text[:500]
    assert response.status_code in (statuses or (400,)), reported
    assert response.headers["content-type"] == "application/json"
    body = msgspec.json.decode(response.content)
    if ANTHROPIC.handles(str(route)):
        assert set(body) == {"type", "error", "request_id"}
        assert body["type"] == "error"
        assert body["request_id"] == response.headers["request-id"]
        error = body["error"]
        assert set(error) == {"type", "message"}
        error = {**error, "param": error["message"].split()[0].rstrip(":"), "code": None}
    elif OLLAMA.handles(str(route)):
        assert set(body) == {"error"}
        error = {"message": body["error"], "type": "invalid_request_error", "code": None}
        error["param"] = error["message"].split()[0].rstrip(":")
    else:
        assert set(body) == {"error"}
        error = body["error"]
        numbers = {"n_prompt_tokens", "n_ctx"} if error["code"] == "context_length_exceeded" else set()
        assert set(error) == {"message", "type", "param", "code"} | numbers
    assert isinstance(error["message"], str)
    assert error["message"]
    assert isinstance(error["type"], str)
    return error


@cache
def least() -> dict[Route, tuple[dict[str, Any], bool]]:
    """The body of each route that has no more than it must have, and whether tokens are generated for it.

    It is the example of the whole, where there is one. Of some fields either one must be there, which a
    schema does not say: so the application is asked.
    """
    collected = {}
    with asking() as ask:
        for route in POSTS:
            body = {name: example(route.fields[name]) for name in route.schema.get("required", ())}
            body |= (route.schema.get("examples") or [{}])[0]
            ask.forget()
            for _ in range(3):
                response = ask(route, body)
                if response.status_code != 400:
                    break
                error = refusal(response, route)
                assert error["param"] in route.fields, error
                body[error["param"]] = example(route.fields[error["param"]])
            assert response.status_code == 200, (str(route), body, response.text)
            collected[route] = body, bool(ask.engine.seen)
    return collected


def has_codes(route: Route | str) -> bool:
    """Whether errors of the route have a code."""
    return not ANTHROPIC.handles(str(route)) and not OLLAMA.handles(str(route))


GENERATING = [route for route in POSTS if route.generates]
