"""What routes need, as typed parameters. All state lives in `app.state`, put there by `create_app`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeVar

from fastapi import Depends, Request

from server.api.common.response_store import ResponseStore
from server.errors import ApiError, bad_request
from server.http.middleware.access_log import Record, record_of

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from engine.tasks.types import Task
    from engine.types import EngineStats, StepOutput
    from engine.types import Request as EngineRequest
    from server.api.common.logprobs import TokenNames
    from server.chat.chat_format import ChatFormats
    from server.chat.template.render import ChatTemplate
    from server.chat.template.sandbox import TemplateFailed
    from server.config.settings import Settings
    from server.generation.job import Job
    from server.metrics.prometheus import Metrics
    from server.sandbox.constraint_checker import ConstraintChecker
    from server.worker.slots import Slots


T = TypeVar("T")
R = TypeVar("R")


class RequestInfo(Protocol):
    """One sequence inside an engine."""

    id: str
    state: str
    n_prompt: int
    n_generated: int
    age_ms: float


class StepOutputs(Protocol):
    """A `server.worker.stream.Stream`: whoever asks for one must iterate to its end or close it."""

    def __aiter__(self) -> AsyncIterator[StepOutput]: ...
    async def aclose(self) -> None: ...


class Engine(Protocol):
    """What routes use of `server.worker.client.EngineClient`."""

    name: str

    @property
    def restarts(self) -> int: ...
    @property
    def state(self) -> str: ...
    @property
    def detail(self) -> str: ...
    @property
    def progress(self) -> float: ...
    @property
    def stalled(self) -> bool: ...
    @property
    def info(self) -> dict[str, Any] | None: ...
    @property
    def tokenizer(self) -> Any: ...
    @property
    def n_ctx(self) -> int: ...
    @property
    def max_batch_size(self) -> int: ...
    @property
    def stats(self) -> EngineStats: ...
    @property
    def slots(self) -> Slots: ...
    async def start(self) -> None: ...
    async def stop(self, drain_s: float = 0.0) -> None: ...
    def ensure_room(self, n: int = 1) -> None: ...
    def generate(self, request: EngineRequest) -> StepOutputs: ...
    async def run(self, work: Task[R]) -> R: ...
    def requests(self) -> Iterable[RequestInfo]: ...
    def cancel(self, id: str) -> bool: ...


@dataclass
class State:
    """Everything that requests share."""

    settings: Settings
    engines: Mapping[str, Engine]
    metrics: Metrics
    threads: Executor
    started: float  # time.time(), as `created` of the models
    chat_template: str | None = None  # in place of the models' own
    jobs: dict[str, Job] = field(default_factory=dict)
    facts: dict[str, ModelFacts] = field(default_factory=dict)
    checkers: dict[str, ConstraintChecker] = field(default_factory=dict)  # of constraints, by model
    stopping: bool = False

    @cached_property
    def aliases(self) -> dict[str, str]:
        """Other names of models → served name."""
        return self.settings.aliases() if self.settings.alias else {}

    @cached_property
    def defaults(self) -> dict[str, Any]:
        """Sampling parameters of requests that bring none."""
        return self.settings.sampling_defaults()

    @cached_property
    def kept(self) -> ResponseStore:
        """Responses that clients may refer to."""
        settings = self.settings
        return ResponseStore(
            settings.max_stored_responses, settings.responses_ttl_s, settings.responses_max_bytes
        )

    async def in_thread(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Work on texts that would hold up the event loop."""
        call = partial(function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self.threads, call)

    def engine(self, name: str | None, ready: bool = True) -> Engine:
        """The engine that serves model `name`; without a name the only one there is (see --any-model)."""
        name = self.aliases.get(name, name) if name is not None else None
        if name is not None and name in self.engines:
            engine = self.engines[name]
        elif self.engines and (self.settings.any_model or (name is None and len(self.engines) == 1)):
            engine = next(iter(self.engines.values()))
        elif name is None:
            raise bad_request(f"model: is required; served are {self._names()}", "model", "missing_field")
        else:
            message = f"no model '{name[:200]}' is served here; served are {self._names()}"
            raise ApiError(404, message, param="model", code="model_not_found", type="invalid_request_error")
        if ready:
            self._check_ready(engine)
        return engine

    def _names(self) -> str:
        return ", ".join(repr(name) for name in self.engines) or "none"

    def _check_ready(self, engine: Engine) -> None:
        if self.stopping or engine.state == "stopped":
            raise ApiError(503, "the server is shutting down", code="shutting_down", retry_after=5)
        if engine.state == "loading":
            percent = f"{engine.progress:.0%}"
            message = f"model '{engine.name}' is loading ({percent})"
            raise ApiError(503, message, code="model_loading", retry_after=2)
        if engine.state == "failed":
            message = f"model '{engine.name}' failed and does not answer; see the server's log"
            raise ApiError(503, message, code="engine_failed", retry=False)


@dataclass(frozen=True)
class ModelFacts:
    """What the HTTP side works out once per model."""

    template: ChatTemplate | TemplateFailed | None
    chat: ChatFormats | TemplateFailed | None
    names: TokenNames
    specials: re.Pattern[str]  # texts of special tokens


# Not plain functions: the framework calls each of those in a thread, which costs more than a small request.
async def get_state(request: Request) -> State:
    state: State = request.app.state.ggserve
    return state


async def get_record(request: Request) -> Record:
    return record_of(request.scope)


async def get_owner(request: Request) -> bytes | None:
    """The key that the request came with, as a digest."""
    owner: bytes | None = request.scope.get("ggserve.key")
    return owner


StateDep = Annotated[State, Depends(get_state)]
RecordDep = Annotated[Record, Depends(get_record)]
OwnerDep = Annotated[bytes | None, Depends(get_owner)]
