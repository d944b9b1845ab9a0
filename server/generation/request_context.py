"""What one HTTP request carries with it from its route to its response."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, TypeVar

from starlette.types import Scope

from engine.config import adapter_scales
from engine.errors import ConfigError
from engine.types import AdapterScales
from server.config.default_sampling import default_sampling
from server.errors import NEVER, ApiError, UnknownModel, bad_request, wrong
from server.keys.client import Client
from server.state import State
from server.worker.engine import Engine

T = TypeVar("T")
MAX_WARNINGS = 32
_LATEST = ":latest"  # which clients of Ollama put after names without a tag, on OpenAI's routes as well
_NAME = re.compile(r"^\w+")


class AccessRecord:
    """What the access log says about one request. Filled in on the way."""

    __slots__ = (
        "cached_n",
        "error",
        "finish",
        "id",
        "key",
        "model",
        "predicted_n",
        "prompt_n",
        "queue_ms",
        "started",
        "status",
        "ttft_ms",
    )

    def __init__(self, request_id: str) -> None:
        self.id = request_id
        self.started = time.monotonic()
        self.status = 0
        self.key: str | None = None  # the name of the client
        self.model: str | None = None
        self.prompt_n: int | None = None
        self.cached_n: int | None = None
        self.predicted_n: int | None = None
        self.queue_ms: float | None = None
        self.ttft_ms: float | None = None
        self.finish: str | None = None
        self.error: str | None = None

    def fields(self) -> dict[str, object]:
        counts = ("prompt_n", "cached_n", "predicted_n", "queue_ms", "ttft_ms")
        names = ("key", "model", *counts, "finish", "error")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


def record_of(scope: Scope) -> AccessRecord:
    """The record that the access log made for this request."""
    record: AccessRecord = scope["ggserve.record"]
    return record


class RequestContext:
    """The shared state, the access-log record, the client and the warnings of one request.

    engine: that of the model which the request names, once `select_engine` has found it.
    """

    engine: Engine

    def __init__(self, state: State, record: AccessRecord, client: Client | None = None) -> None:
        """client: that of the request's API key; None: that of a server without keys."""
        self.state, self.record = state, record
        self.client = client or state.keys.anonymous
        self.debug = state.settings.log_level == "debug"
        self.warnings: list[str] = []
        self.field_names: Mapping[str, str] = {}  # shared fields that the API calls something else

    def select_engine(self, name: str | None, *, ready: bool = True) -> Engine:
        """The engine that serves model `name`, with or without `:latest`; without a name the only one.

        Raises ApiError: 400 or 404 for a name that is not served, 503 (unless `ready` is False) for an engine
        that cannot take requests.
        """
        engines, aliases = self.state.engines, self.state.aliases
        spellings = () if name is None else (name, name.removesuffix(_LATEST), name + _LATEST)
        served_names = (aliases.get(spelling, spelling) for spelling in spellings)
        engine = next((engines[served] for served in served_names if served in engines), None)
        if (
            engine is None
            and engines
            and (self.state.settings.any_model or (name is None and len(engines) == 1))
        ):
            engine = next(iter(engines.values()))
        if engine is None:
            served = ", ".join(map(repr, engines)) or "none"
            if name is None:
                raise bad_request(f"model: is required; served are {served}", "model", "missing_field")
            raise UnknownModel(f"no model '{name[:200]}' is served here; served are {served}", name)
        if ready and (self.state.stopping or engine.state in ("stopped", "loading", "failed")):
            raise unavailable(engine, self.state.stopping)
        self.engine = engine
        return engine

    @property
    def owner(self) -> str | None:
        """The client's name: whose responses and conversations these are."""
        return self.client.name

    def cache_salt(self, requested: str = "") -> str:
        """What keeps this request's prefixes apart; requested: the salt that the client sent."""
        if self.state.settings.cache_isolation == "key" and self.owner is not None:
            return f"{self.owner}\0{requested}"  # no name holds a NUL
        return requested

    @property
    def default_sampling(self) -> Mapping[str, Any]:
        """Sampling parameters of requests to this model that do not set them."""
        engine, known = self.engine, self.state.default_sampling
        if engine.name not in known:
            known[engine.name] = default_sampling(engine.info, self.state.settings.sampling_defaults())
        return known[engine.name]

    @property
    def lora(self) -> AdapterScales:
        """LoRA adapters of requests to this model that do not name any."""
        loaded, engine = self.state.lora, self.engine
        if engine.name not in loaded:
            adapters = [(adapter["id"], adapter["scale"]) for adapter in (engine.info or {}).get("lora", ())]
            return adapter_scales(adapters, len(adapters))
        return loaded[engine.name]

    def check_lora(self, pairs: Iterable[tuple[int, float]], param: str) -> AdapterScales:
        """A client's choice of adapters; ApiError names `param` if the model does not have them."""
        try:
            return adapter_scales(pairs, len((self.engine.info or {}).get("lora", ())))
        except ConfigError as error:
            raise wrong(param, str(error)) from error

    def warn(self, text: str) -> None:
        """Add to the response's `warnings`. Repetitions and what exceeds the bound are dropped."""
        text = _NAME.sub(lambda name: self.field_names.get(name[0], name[0]), text, count=1)
        warnings = self.warnings
        if text in warnings or len(warnings) > MAX_WARNINGS:
            return
        warnings.append(text if len(warnings) < MAX_WARNINGS else "further warnings are left out")

    def with_warnings(self, reply: dict[str, Any]) -> dict[str, Any]:
        """A JSON object with the warnings, if there are any."""
        return {**reply, "warnings": self.warnings} if self.warnings else reply

    async def in_thread(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run work on texts that would block the event loop."""
        call = partial(_without_stop_iteration, function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self.state.threads, call)


def _without_stop_iteration(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """A future cannot hold a StopIteration: whoever awaits it would wait forever."""
    try:
        return function(*args, **kwargs)
    except StopIteration as error:
        raise RuntimeError("StopIteration in a thread") from error


def unavailable(engine: Engine, stopping: bool = False) -> ApiError:
    """The 503 of an engine that takes no requests."""
    if stopping or engine.state == "stopped":
        return ApiError(503, "the server is shutting down", code="shutting_down", retry_after=5)
    if engine.state == "failed":
        message = f"model '{engine.name}' failed and does not answer; see the server's log"
        return ApiError(503, message, code="engine_failed", retry_after=NEVER)
    if engine.state == "loading":
        message = f"model '{engine.name}' is loading ({engine.progress:.0%})"
        return ApiError(503, message, code="model_loading", retry_after=2)
    message = f"model '{engine.name}' is not available at the moment ({engine.state})"
    return ApiError(503, message, code="engine_unavailable", retry_after=2)
