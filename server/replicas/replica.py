"""A replica: an engine client with its engine process, called by the ingresses."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any
from uuid import uuid4

from engine.tasks.types import TaskFailure
from server import logs
from server.replicas import messages
from server.replicas.batches import batches
from server.replicas.options import Deployment
from server.replicas.routing import RecentBlocks, prefix_keys
from server.worker.client import EngineClient
from server.worker.errors import TaskFailed
from server.worker.supervision.process import DEFAULT_ARGV

log = logging.getLogger("ggserve")

REPORTED_BLOCKS = 1024


class Replica:
    """One, in its own process: `start` it once (`server.replicas.application`).

    options: of `Deployment`. argv: the command of the engine process. exit: ends this process, which Ray
    Serve then replaces.
    """

    def __init__(
        self,
        options: dict[str, Any],
        argv: Sequence[str] = DEFAULT_ARGV,
        exit: Callable[[int], object] = os._exit,
    ) -> None:
        deployment = Deployment.model_validate(options)
        settings = deployment.local_settings()
        logs.configure(settings.log_level, settings.log_format)
        ((name, path),) = settings.models().items()
        self.id = uuid4().hex[:12]
        # An ingress has the limit on waiting requests; what Ray Serve routes to this replica is not refused.
        self.client = EngineClient(name, path, settings.model_copy(update={"max_queue": 1 << 16}), argv=argv)
        self._blocks = RecentBlocks()
        self._calls: dict[str, str] = {}  # id of a running request → its id for the engine
        self._n_calls = 0
        self._stream_interval_s = deployment.stream_interval_ms / 1000
        self._exit = exit

    async def start(self) -> None:
        """Load the model. Raises LoadFailed if that fails."""
        await self.client.start()
        log.info("replica %s is ready, engine process %s", self.id, self.client.pid)

    def info(self) -> dict[str, Any]:
        """The description of the model."""
        return self.client.info or {}

    async def generate(
        self, call: bytes, prefix: bytes = b"", cached: Mapping[str, int] = MappingProxyType({})
    ) -> AsyncGenerator[bytes, None]:
        """Frames of `messages.Outputs` until the request has ended. Closing the generator cancels it.

        prefix, cached: for the router only.
        """
        request = messages.decode_request(call)
        id = request.id
        if id in self._calls:  # its ingress has given it up for lost
            self.client.cancel(self._calls[id])
        self._n_calls += 1
        request.id = self._calls[id] = f"{id}/{self._n_calls}"
        stream = self.client.generate(request)
        replica = self.id  # with the first and the last frame
        try:
            async for outputs in batches(stream, self._stream_interval_s):
                for output in outputs:
                    output.id = id
                frame = messages.Outputs(outputs, replica)
                replica = ""
                if outputs[-1].finish is not None:
                    frame.replica, frame.stats = self.id, self.client.stats
                yield messages.encode(frame)
        finally:
            self._blocks.add(prefix_keys(request, stream.tokens))
            if self._calls.get(id) == request.id:
                del self._calls[id]
            await stream.aclose()

    async def run(self, call: bytes) -> bytes:
        """Run a task. Returns a frame of `messages.TaskEnd`."""
        try:
            end = messages.TaskEnd(await self.client.run(messages.decode_task(call)))
        except TaskFailed as error:
            end = messages.TaskEnd(failure=TaskFailure(error.kind, str(error)))
        return messages.encode(end)

    def record_routing_stats(self) -> dict[str, Any]:
        """Reports to the routers of all ingresses what others have sent here. Called by Ray Serve."""
        return {"blocks": self._blocks.newest(REPORTED_BLOCKS)}

    def check_health(self) -> None:
        """Called by Ray Serve.

        An engine that has failed permanently is replaced together with its replica.
        """
        if self.client.state == "failed":
            log.error("replica %s ends: %s", self.id, self.client.detail)
            self._exit(1)
