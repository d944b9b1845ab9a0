"""The state that all requests of one application share."""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Protocol

from engine.types import AdapterScales, Constraint
from server.chat.prompt import ChatFormats
from server.chat.template.render import TemplateFailed
from server.config.settings import Settings
from server.keys.key_ring import KeyRing
from server.metrics.prometheus import Metrics
from server.metrics.traces import Traces
from server.registry.registry import ModelRegistry
from server.sandbox.constraint_child import CheckResult
from server.worker.engine import Engine


@dataclass(frozen=True)
class ChatSupport:
    """Derived once from a model's tokenizer and chat template.

    formats: None: it has no template; TemplateFailed: the template cannot be used.
    """

    formats: ChatFormats | TemplateFailed | None
    special_tokens: re.Pattern[str]  # matches the texts of special tokens


class ConstraintCheck(Protocol):
    """A `server.input.constraints.ConstraintChecker`."""

    async def check(self, constraint: Constraint) -> CheckResult: ...
    def close(self) -> None: ...


@dataclass
class Derived:
    """What the server derives from the model of one engine, each on first use.

    default_sampling: with the settings of which it is made. lora: the adapters that a client has set for
    requests that name none.
    """

    chat_support: ChatSupport | None = None
    default_sampling: tuple[Settings, Mapping[str, Any]] | None = None
    lora: AdapterScales | None = None
    constraint_checker: ConstraintCheck | None = None

    def close(self) -> None:
        """End the child processes."""
        if self.constraint_checker is not None:
            self.constraint_checker.close()


@dataclass
class State:
    """One per application, as `app.state.ggserve`; created by `create_app`."""

    settings: Settings
    registry: ModelRegistry
    metrics: Metrics
    threads: Executor  # for work on texts that would block the event loop
    started: float  # time.time(), as `created` of the models
    chat_template: str | None = None  # replaces the models' own
    keys: KeyRing = field(default_factory=KeyRing)
    jobs: dict[str, object] = field(default_factory=dict)  # running ones; see `generation.job.visible_jobs`
    background: set[asyncio.Task[None]] = field(default_factory=set)  # what runs while no client waits
    stopping: bool = False
    traces: Traces | None = None
    derived: defaultdict[Engine, Derived] = field(default_factory=lambda: defaultdict(Derived))

    @property
    def engines(self) -> Mapping[str, Engine]:
        """The engines that exist, by model."""
        return self.registry.engines

    def reload(self, values: Mapping[str, Any]) -> None:
        """Apply options that have changed while the server runs."""
        self.settings = self.settings.model_copy(update=dict(values))

    def forget(self, engine: Engine) -> None:
        """Called when an engine has stopped."""
        if (derived := self.derived.pop(engine, None)) is not None:
            derived.close()

    def close(self) -> None:
        """Called when all engines have stopped."""
        for engine in list(self.derived):
            self.forget(engine)

    @property
    def started_at(self) -> str:
        """The start time as text; clients take it for the age of models."""
        return f"{datetime.fromtimestamp(self.started, UTC):%Y-%m-%dT%H:%M:%SZ}"

    @cached_property
    def aliases(self) -> dict[str, str]:
        """Other names of models → served name."""
        return self.settings.aliases() if self.settings.alias else {}
