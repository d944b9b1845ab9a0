"""A registry of engines that do what a test says, with a clock that only the test moves."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from engine.errors import ModelError
from server.registry.loader import Capacity
from server.registry.registry import ModelRegistry, Policy
from server.registry.served_model import ServedModel
from server.worker.errors import LoadFailed

SIZE = 100  # bytes of a loaded engine


class ScriptedEngine:
    """Loads when the test opens its gate, or at once."""

    def __init__(self, name: str, memory: int | None, models: Models) -> None:
        self.name, self.memory, self.models, self.log = name, memory, models, models.log
        self.state, self.progress, self.replaced, self.detail = "loading", 0.0, False, ""
        self.info: dict[str, Any] | None = None
        self.gate = asyncio.Event()
        self.killed = self.blocked = False

    async def start(self) -> None:
        self.log.append(f"load {self.name}")
        if self.name in self.models.held:
            await self.gate.wait()
        error = self.models.errors.get(self.name)
        if self.memory is not None and self.memory < SIZE:
            error = LoadFailed("OutOfMemoryError", f"needs {SIZE}, has {self.memory}")
        if error is not None:
            self.state = "failed"
            raise error
        self.state, self.info = "ready", {"weight_bytes": SIZE}
        self.log.append(f"loaded {self.name}")

    async def stop(self, drain_s: float = 0.0) -> None:
        if self.state != "stopped":
            self.log.append(f"stop {self.name}")
        self.state = "stopped"

    def kill(self) -> None:
        self.killed = True


class Models:
    """A registry of models a, b, … of a folder, whose engines load at once unless `held` has the name.

    log: loads and stops in order. errors: by name, what loads raise. made: every engine, in order.
    """

    def __init__(
        self, names: str, first: str = "", *, max_models: int = 0, memory: int | None = None, **policy: Any
    ):
        self.now = 1000.0
        self.log: list[str] = []
        self.held: set[str] = set()
        self.errors: dict[str, LoadFailed] = {}
        self.damaged: set[str] = set()
        self.made: list[ScriptedEngine] = []
        self.registry = ModelRegistry(
            {name: Path(f"{name}.gguf") for name in first},
            self._new_engine,
            Policy(**policy),
            Capacity(max_models, memory),
            check_file=self._check_file,
            clock=lambda: self.now,
        )
        idle_s = policy.get("idle_s")
        for name in names:
            path = Path(f"{name}.gguf")
            self.registry.models[name] = ServedModel(name, path, in_folder=True, keep_alive_s=idle_s)

    def _new_engine(self, model: ServedModel, memory: int | None) -> Any:
        engine = ScriptedEngine(model.name, memory, self)
        self.made.append(engine)
        return engine

    def _check_file(self, path: Path) -> None:
        if path.stem in self.damaged:
            raise ModelError(f"{path}: is not a GGUF file")

    def __getitem__(self, name: str) -> ServedModel:
        return self.registry.models[name]

    async def use(self, name: str) -> None:
        """One request, served at once."""
        self.registry.release(await self.registry.wait(self[name]))

    def states(self) -> str:
        """Such as `a ready, b unloaded`."""
        return ", ".join(f"{name} {model.state}" for name, model in self.registry.models.items())


async def settle() -> None:
    """Let everything run that needs no time."""
    for _ in range(20):
        await asyncio.sleep(0)
