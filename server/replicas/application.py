"""The Serve application: the deployments `replica` and `ingress`, to which Ray Serve's proxies forward.

In a Serve config file: `import_path: server.replicas.application:build`, `args`: those of `Deployment`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray import serve
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server import logs
from server.app import create_app
from server.keys.key_ring import KeyRing
from server.registry.registry import ModelRegistry
from server.replicas.engine import IngressLimits, ReplicaLost, ReplicatedEngine
from server.replicas.options import Deployment
from server.replicas.replica import Replica
from server.replicas.router import PrefixRouter

# Besides those that run: a replica that becomes free must not wait for the router.
WAITING_AT_REPLICA = 2
UNBOUNDED = 1 << 20  # the ingress has its own limits
HEALTH_CHECK_S = 2.0
REPORT_S = 1.0  # between two reports of the routing statistics, with more than one ingress


class ServedReplica(Replica):
    """`Replica` as a Ray Serve deployment: it accepts requests once its model is loaded."""

    async def __init__(self, *arguments: Any) -> None:  # type: ignore[misc]
        super().__init__(*arguments)
        self.id = serve.get_replica_context().replica_id.unique_id
        await self.start()


class ServeReplicas:
    """Implements `server.replicas.engine.Replicas` with a handle of the deployment `replica`."""

    def __init__(self, handle: Any) -> None:
        handle = handle.options(
            _by_reference=False
        )  # by gRPC: a third of the processor time of Ray's objects
        self._generate = handle.options(method_name="generate", stream=True)
        self._run, self._info = (handle.options(method_name=name) for name in ("run", "info"))

    async def generate(self, call: bytes, prefix: bytes, cached: dict[str, int]) -> AsyncIterator[bytes]:
        response = self._generate.remote(call, prefix=prefix, cached=cached)
        try:
            with _losses():
                async for frame in response:
                    yield frame
        finally:
            response.cancel()

    async def run(self, call: bytes) -> bytes:
        with _losses():
            result: bytes = await self._run.remote(call)
        return result

    async def info(self) -> dict[str, Any]:
        with _losses():
            info: dict[str, Any] = await self._info.remote()
        return info


@contextmanager
def _losses() -> Iterator[None]:
    """Turns errors of calls into ReplicaLost. They are of many kinds; an error raised by a replica counts as
    a loss too.
    """
    try:
        yield
    except Exception as error:
        text = str(error).partition("\n")[0]
        raise ReplicaLost(f"{type(error).__name__}: {text}") from error


class WithoutRequestId:
    """ASGI middleware that removes x-request-id: Ray Serve's proxy adds its own, and clients would read both
    as one.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_without(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [pair for pair in message["headers"] if pair[0] != b"x-request-id"]
            await send(message)

        await self.app(scope, receive, send_without if scope["type"] == "http" else send)


class Ingress:
    """The HTTP server with a `ReplicatedEngine`."""

    def __init__(self, handle: Any, options: dict[str, Any]) -> None:
        self._handle, self._deployment = handle, Deployment.model_validate(options)

    def __serve_build_asgi_app__(self) -> Any:
        """Called by Ray Serve."""
        deployment = self._deployment
        settings = deployment.local_settings()
        logs.configure(settings.log_level, settings.log_format)
        n = deployment.max_replicas
        limits = IngressLimits(n, settings.parallel * n, settings.max_queue * n, settings.send_timeout_s)
        ((name, path),) = settings.models().items()
        engine = ReplicatedEngine(name, str(path), ServeReplicas(self._handle), limits)
        registry = ModelRegistry({name: path}, lambda model, memory: engine)
        app = create_app(settings, registry, KeyRing(settings.api_key, settings.api_key_file))
        app.add_middleware(WithoutRequestId)
        return app


NAME = "ggserve"  # of the application


def deploy(deployment: Deployment, address: str, key_password: str | None = None) -> None:
    """Deploy on the cluster at `address`; "local": on a cluster that ends with this process.

    key_password: of the private key of --tls-key. Returns when the application serves. Raises ConnectionError
    if there is no cluster.
    """
    if not ray.is_initialized():
        ray.init(address, log_to_driver=address == "local")
    options = deployment.http_options
    if key_password is not None:
        options["ssl_keyfile_password"] = key_password
    serve.start(http_options=options)
    serve.run(application_of(deployment), name=NAME, route_prefix="/")


def build(args: dict[str, Any]) -> Any:
    """The application, for config files. args: of `Deployment`. Ray Serve requires exactly one parameter."""
    return application_of(Deployment.model_validate(args))


def application_of(deployment: Deployment, replica: type[Replica] = ServedReplica) -> Any:
    """The application with replicas of this class."""
    args = deployment.model_dump()
    settings = deployment.base_settings
    shared = {
        "graceful_shutdown_timeout_s": settings.drain_s,
        "health_check_period_s": HEALTH_CHECK_S,
        "logging_config": {"enable_access_log": False},
    }
    scaling: dict[str, Any] = {"num_replicas": deployment.replicas}
    if deployment.autoscale is not None:
        fewest, most = deployment.autoscale
        scaling = {
            "autoscaling_config": {
                "min_replicas": fewest,
                "max_replicas": most,
                "target_ongoing_requests": settings.parallel,  # running and waiting ones
                "look_back_period_s": 10.0,
                "upscale_delay_s": 5.0,
                "downscale_delay_s": 300.0,
            }
        }
    replicas = serve.deployment(
        replica,
        name="replica",
        max_ongoing_requests=settings.parallel * WAITING_AT_REPLICA,
        ray_actor_options={"num_cpus": deployment.cpus, "num_gpus": deployment.gpus},
        request_router_config={
            "request_router_class": PrefixRouter,
            "request_router_kwargs": {"parallel": settings.parallel},
            "request_routing_stats_period_s": REPORT_S if deployment.ingresses > 1 else 60.0,
            "max_backoff_s": 0.1,
        },
        **scaling,
        **shared,
    )
    ingresses = serve.deployment(
        serve.ingress()(Ingress),
        name="ingress",
        num_replicas=deployment.ingresses,
        max_ongoing_requests=UNBOUNDED,
        **shared,
    )
    return ingresses.bind(replicas.bind(args), args)
