"""SIGHUP: keys and options are read again, and the options that can take effect at run time do."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.errors import ConfigError
from server import logs
from server.config.live import changes
from server.config.settings import Settings
from server.keys.key_ring import KeyRing
from server.registry.registry import ModelRegistry, Policy
from server.registry.served_model import ServedModel
from server.worker.client import EngineClient

log = logging.getLogger("ggserve")


class Engines:
    """Creates the engine of a model with the options in effect at that time."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def __call__(self, model: ServedModel, memory: int | None) -> EngineClient:
        settings = self.settings.model_copy(update={"models_memory": memory})
        engine = EngineClient(model.name, model.path, settings)
        engine.waits_for_memory = not model.in_folder  # else the next request loads it, and others make room
        return engine


def policy_of(settings: Settings, folder: Path | None) -> Policy:
    """folder: --models-dir."""
    idle_s = settings.sleep_idle_seconds
    return Policy(
        autoload=not settings.no_models_autoload,
        idle_s=idle_s if idle_s >= 0 else None,
        max_waiting=settings.max_queue + settings.parallel,
        folder=folder,
    )


class Reloading:
    """options: as read at the start. read: reads them again; raises ConfigError if they are invalid.

    apply: called with the options that have changed and take effect.
    """

    def __init__(
        self,
        keys: KeyRing,
        options: Settings,
        read: Callable[[], Settings],
        apply: Callable[[dict[str, Any]], None],
    ) -> None:
        self._keys, self._options, self._read, self._apply = keys, options, read, apply

    def __call__(self) -> None:
        """Invalid options change nothing; the log says why in one line."""
        if self._keys.file is not None:
            self._keys.reload_or_log()
        try:
            live, others = changes(self._options, self._read())
        except ConfigError as error:
            log.error("%s; the options are unchanged", error)
            return
        if live:
            self._options = self._options.model_copy(update=live)
            self._apply(live)
            log.info("these options have changed and are in effect: %s", ", ".join(live))
        if others:
            log.warning("these options have changed but need a restart: %s", ", ".join(others))
        if not live and not others:
            log.info("the options have not changed")


def apply_options(values: dict[str, Any], state: Any, engines: Engines) -> None:
    """state: `server.state.State`, which is read by everything that does not get its options here."""
    state.reload(values)
    settings: Settings = state.settings
    registry: ModelRegistry = state.registry
    engines.settings = settings
    for engine in registry.all_engines():
        if isinstance(engine, EngineClient):
            engine.reload(settings)
    registry.reload(policy_of(settings, registry.policy.folder))
    logs.configure(settings.log_level, settings.log_format)
