"""The state that one HTTP request carries from its route to its response."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

from starlette.types import Scope

from engine.config import DRAFT_MODEL, MAX_DRAFT, MAX_PRIORITY, NGRAM, adapter_scales
from engine.errors import ConfigError
from engine.types import AdapterScales
from server.config.default_sampling import default_sampling
from server.errors import NEVER, ApiError, UnknownModel, bad_request, overloaded, rate_limited, wrong
from server.keys.client import Client
from server.keys.usage import LimitReached
from server.registry.served_model import NO_MEMORY, UNLOADED, Lease, ServedModel
from server.state import State
from server.worker.engine import Engine
from server.worker.errors import LoadFailed, QueueFull

T = TypeVar("T")
MAX_WARNINGS = 32
_LATEST = ":latest"  # which clients of Ollama put after names without a tag, on OpenAI's routes as well
_NAME = re.compile(r"^\w+")
RETRY_S = 10  # after a load that failed


class Phase(NamedTuple):
    """A part of a request's time, from `start` to `end` by time.monotonic."""

    name: str
    start: float
    end: float
    attributes: Mapping[str, int] = {}


class AccessRecord:
    """The access log's record of one request, filled in along the way."""

    __slots__ = (
        "cached_n",
        "error",
        "finish",
        "id",
        "key",
        "leases",
        "load_ms",
        "model",
        "phases",
        "predicted_n",
        "priority",
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
        self.leases: list[Lease] = []  # released at the end of the request
        self.model: str | None = None
        self.load_ms: float | None = None  # waited for the model to be loaded
        self.priority: int | None = None  # None: 0, or no request for tokens
        self.prompt_n: int | None = None
        self.cached_n: int | None = None
        self.predicted_n: int | None = None
        self.queue_ms: float | None = None
        self.ttft_ms: float | None = None
        self.phases: Sequence[Phase] = ()  # of its sequences
        self.finish: str | None = None
        self.error: str | None = None

    def fields(self) -> dict[str, object]:
        counts = ("prompt_n", "cached_n", "predicted_n", "queue_ms", "ttft_ms")
        names = ("key", "model", "load_ms", "priority", *counts, "finish", "error")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


def record_of(scope: Scope) -> AccessRecord:
    """The access-log record of this request."""
    record: AccessRecord = scope["ggserve.record"]
    return record


class RequestContext:
    """The shared state, access-log record, client and warnings of one request.

    model, engine: those that the request names, set by `select_engine`. lease: the request's use of the
    engine.
    """

    model: ServedModel
    engine: Engine
    lease: Lease

    def __init__(self, state: State, record: AccessRecord, client: Client | None = None) -> None:
        """client: identified by the request's API key; None: the client of a server without keys."""
        self.state, self.record = state, record
        self.client = client or state.keys.anonymous
        self.debug = state.settings.log_level == "debug"
        self.warnings: list[str] = []
        self.field_names: Mapping[str, str] = {}  # shared fields that the API calls something else

    def find_model(self, name: str | None) -> ServedModel:
        """The model called `name`, with or without `:latest`; without a name, the only model.

        Raises ApiError: 400 or 404 for a name that is not served.
        """
        models, aliases = self.state.registry.models, self.state.aliases
        spellings = () if name is None else (name, name.removesuffix(_LATEST), name + _LATEST)
        served_names = (aliases.get(spelling, spelling) for spelling in spellings)
        model = next((models[served] for served in served_names if served in models), None)
        if (
            model is None
            and models
            and (self.state.settings.any_model or (name is None and len(models) == 1))
        ):
            model = next(iter(models.values()))
        if model is None:
            served = ", ".join(map(repr, models)) or "none"
            if name is None:
                raise bad_request(f"model: is required; served are {served}", "model", "missing_field")
            raise UnknownModel(f"no model '{name[:200]}' is served here; served are {served}", name)
        return model

    def select_engine(self, name: str | None, *, counts: bool = True) -> Engine:
        """The engine that serves model `name`, held for this request until it ends.

        counts: the use keeps the model loaded. Raises ApiError as `find_model` does, PendingModel if the
        model can be loaded, otherwise 503.
        """
        model = self.model = self.find_model(name)
        registry, stopping = self.state.registry, self.state.stopping
        lease = None if stopping else registry.acquire(model, counts=counts)
        if lease is None:
            may_load = not stopping and registry.may_load(model)
            raise PendingModel(model, self._places()) if may_load else unavailable_model(model, stopping)
        self.record.leases.append(lease)
        self.lease, self.engine = lease, lease.residency.engine
        return self.engine

    @property
    def owner(self) -> str | None:
        """The client's name, as the owner of its responses and conversations."""
        return self.client.name

    def ensure_room(self, n: int = 1) -> None:
        """Raises ApiError (429) if the queue has no room for `n` more; called before anything is charged."""
        try:
            self.engine.ensure_room(self._places(n))
        except QueueFull as error:
            self.state.metrics.of(self.engine.name).rejected()
            raise overloaded(self.engine.name, error.retry_after_s) from error

    def _places(self, n: int = 1) -> int:
        """The number of places that must be free in a queue for `n` more sequences.

        If there are several clients, each may have only as many waiting as there are places left, so that
        none can keep the others out.
        """
        if self.state.keys.has_several_clients:
            return max(n, self.client.usage.running - self.state.settings.parallel)
        return n

    def spend_prompt(self, n: int) -> None:
        """Count the tokens of a prompt against the client's limit, before they are computed.

        Raises ApiError (429) if that many are not left.
        """
        if self.client.usage.tokens is None:
            return
        try:
            self.client.usage.spend_prompt(n)
        except LimitReached as limit:
            raise rate_limited(str(limit), limit.retry_after_s) from limit

    def priority(self, requested: int | None) -> int:
        """The priority of the request's sequences. Raises ApiError if the client may not use it."""
        allowed = self.client.profile.priority
        if requested is not None and requested < allowed and not self.client.is_admin:
            text = f"must be {allowed} to {MAX_PRIORITY} with this key, not {requested} (lower is earlier)"
            raise wrong(self.field_names.get("priority", "priority"), text)
        priority = allowed if requested is None else requested
        self.record.priority = priority or None
        return priority

    def cache_salt(self, requested: str = "") -> str:
        """The salt that keeps this request's prefixes apart. requested: the salt that the client sent."""
        if self.state.settings.cache_isolation == "key" and self.owner is not None:
            return f"{self.owner}\0{requested}"  # no name holds a NUL
        return requested

    @property
    def spec_type(self) -> str:
        """The source of drafts for requests that do not set it, or "none"."""
        settings = self.state.settings
        default = "none" if settings.draft_model is None else DRAFT_MODEL
        return default if settings.spec_type == "auto" else settings.spec_type

    def drafts(self, most: int | None, spec_type: str | None) -> tuple[int, str]:
        """The maximum number of tokens to draft per step, and the source of the drafts.

        most, spec_type: as requested; None: as the server's options say.
        """
        settings, info = self.state.settings, self.engine.info or {}
        source = spec_type or self.spec_type
        if source == "none":
            if most:
                self.warn("speculative.n_max has no effect: speculative.type is none")
            return 0, NGRAM
        reason = None
        if not info.get("drafts", True):
            reason = "states of recurrent layers cannot be rolled back"
        elif source == DRAFT_MODEL and info.get("draft_model", settings.draft_model) is None:
            reason = "no draft model is loaded (--draft-model)"
        if reason is not None:
            if spec_type is not None:
                self.warn(f"speculative.type has no effect: {reason}")
            return 0, NGRAM
        if most is not None and most > MAX_DRAFT:
            self.warn(f"speculative.n_max: {MAX_DRAFT} is used, the limit")
        return settings.spec_draft_n_max if most is None else min(most, MAX_DRAFT), source

    @property
    def default_sampling(self) -> Mapping[str, Any]:
        """Default sampling parameters of requests to this model."""
        settings, derived = self.state.settings, self.state.derived[self.engine]
        made = derived.default_sampling
        if made is None or made[0] is not settings:  # another thread may reload them meanwhile
            made = settings, default_sampling(self.engine.info, settings.sampling_defaults())
            derived.default_sampling = made
        return made[1]

    @property
    def lora(self) -> AdapterScales:
        """Default LoRA adapters of requests to this model."""
        requested, engine = self.state.derived[self.engine].lora, self.engine
        if requested is None:
            adapters = [(adapter["id"], adapter["scale"]) for adapter in (engine.info or {}).get("lora", ())]
            return adapter_scales(adapters, len(adapters))
        return requested

    def check_lora(self, pairs: Iterable[tuple[int, float]], param: str) -> AdapterScales:
        """A client's choice of adapters. Raises ApiError, naming `param`, if the model does not have them."""
        try:
            return adapter_scales(pairs, len((self.engine.info or {}).get("lora", ())))
        except ConfigError as error:
            raise wrong(param, str(error)) from error

    def warn(self, text: str) -> None:
        """Add to the response's `warnings`. Repetitions, and warnings beyond the limit, are dropped."""
        text = _NAME.sub(lambda name: self.field_names.get(name[0], name[0]), text, count=1)
        warnings = self.warnings
        if text in warnings or len(warnings) > MAX_WARNINGS:
            return
        warnings.append(text if len(warnings) < MAX_WARNINGS else "further warnings are omitted")

    def with_warnings(self, reply: dict[str, Any]) -> dict[str, Any]:
        """A JSON object, with the warnings added if there are any."""
        return {**reply, "warnings": self.warnings} if self.warnings else reply

    async def in_thread(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run text processing that would block the event loop in a thread."""
        call = partial(_without_stop_iteration, function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self.state.threads, call)


def _without_stop_iteration(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """A future cannot hold a StopIteration: its awaiter would wait forever."""
    try:
        return function(*args, **kwargs)
    except StopIteration as error:
        raise RuntimeError("StopIteration in a thread") from error


class PendingModel(ApiError):
    """The model is not loaded but can be: routes with a JSON body load it and try again.

    n_places: the places that must be free for the request to wait.
    """

    def __init__(self, model: ServedModel, n_places: int) -> None:
        message = f"model '{model.name}' is not loaded; a request to generate with it loads it"
        super().__init__(503, message, param="model", code="model_not_loaded", retry_after=2)
        self.model, self.n_places = model, n_places


def unavailable(engine: Engine, stopping: bool = False) -> ApiError:
    """The 503 of an engine that accepts no requests."""
    if stopping or engine.state == "stopped":
        return ApiError(503, "the server is shutting down", code="shutting_down", retry_after=5)
    if engine.state == "failed" and engine.replaced:
        message = f"the file of model '{engine.name}' was replaced and is being loaded; repeat the request"
        return ApiError(503, message, code="model_replaced", retry_after=2)
    if engine.state == "failed":
        message = f"model '{engine.name}' failed and does not answer; see the server's log"
        return ApiError(503, message, code="engine_failed", retry_after=NEVER)
    if engine.state == "loading":
        message = f"model '{engine.name}' is loading ({engine.progress:.0%})"
        return ApiError(503, message, code="model_loading", retry_after=2)
    message = f"model '{engine.name}' is not available at the moment ({engine.state})"
    return ApiError(503, message, code="engine_unavailable", retry_after=2)


def unavailable_model(model: ServedModel, stopping: bool = False) -> ApiError:
    """Why a model accepts no requests, if requests may not load it or could not."""
    if model.failure is not None and (model.engine is None or model.failure.kind == NO_MEMORY):
        return load_error(model, model.failure)
    if model.engine is not None:
        return unavailable(model.engine, stopping)
    if stopping:
        return ApiError(503, "the server is shutting down", code="shutting_down", retry_after=5)
    if model.starting:
        return ApiError(503, f"model '{model.name}' is loading (0%)", code="model_loading", retry_after=2)
    message = f"model: '{model.name}' is not loaded; load it with POST /v1/models/load"
    return bad_request(message, "model", "model_not_loaded")


def load_error(model: ServedModel, failure: LoadFailed) -> ApiError:
    """A failed load. Only an out-of-memory error is given as the reason; others may name paths."""
    if failure.kind == NO_MEMORY:
        message = f"model '{model.name}' does not fit: {failure}"
        return ApiError(503, message, param="model", code="out_of_memory", retry_after=RETRY_S)
    if failure.kind == UNLOADED:
        message = f"model '{model.name}' was unloaded while it was loading"
        return ApiError(503, message, param="model", code="model_unloaded", retry_after=2)
    message = f"model '{model.name}' cannot be loaded; see the server's log"
    return ApiError(503, message, param="model", code="load_failed", retry_after=RETRY_S)
