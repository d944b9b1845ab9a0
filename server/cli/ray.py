"""`ggserve ray`: replicas of a model on the machines of a Ray cluster."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from typing import Any

import yaml

from engine.errors import ConfigError
from server.cli.command import (
    Parser,
    add_model_argument,
    configure_quiet_logging,
    requested_options,
    warn_if_public,
)
from server.config import sources
from server.http.certificate import PASSWORD_VARIABLE, Certificate
from server.replicas.options import Deployment

EXAMPLES = """\
  ray start --head                                                 a cluster, on its first machine
  ggserve ray deploy model.gguf --replicas 4                       four engines on its machines
  ggserve ray deploy model.gguf --autoscale 1,8 --replica-gpus 1   as many as requests need
  ggserve ray deploy --local --replicas 2                          a cluster that ends with Ctrl-C
  ggserve ray config model.gguf --replicas 4 > serve.yml           for `serve deploy serve.yml`

The model's file must be at the same path on every machine, or have a name that is downloaded there
(hf:OWNER/REPO). See docs/scaling.md."""
ACTIONS = ("deploy", "config")


def _parser() -> Parser:
    parser = Parser(
        "ggserve ray",
        "Serve a model with replicas on a Ray cluster (Ray Serve): deploy it, or print a Serve config file.",
        EXAMPLES,
    )
    parser.add_argument("action", choices=ACTIONS, help="deploy, or print a config file for Ray Serve")
    add_model_argument(parser)
    group = parser.add_argument_group("replicas")
    group.add_argument("--replicas", type=int, default=1, metavar="N", help="number of engines (default: 1)")
    group.add_argument(
        "--autoscale",
        type=_pair,
        metavar="MIN,MAX",
        help="scale the number of replicas within these limits, by running and waiting requests",
    )
    group.add_argument(
        "--ingresses",
        type=int,
        default=1,
        metavar="N",
        help="number of HTTP servers in front of the replicas (default: 1); each has its own stored "
        "responses, limits of keys and list of requests",
    )
    group.add_argument(
        "--replica-cpus",
        type=float,
        default=1,
        metavar="N",
        help="CPUs that a replica reserves (default: 1); without --threads, also the threads it uses",
    )
    group.add_argument(
        "--replica-gpus", type=float, default=0, metavar="N", help="GPUs that a replica reserves (default: 0)"
    )
    group.add_argument(
        "--stream-interval-ms",
        type=float,
        default=0,
        metavar="MS",
        help="minimum time between two events of a stream; the tokens of that time are sent together, which "
        "saves processor time of ingresses and proxies (default: 0, send each token at once)",
    )
    group.add_argument(
        "--address",
        default="auto",
        help="address of the Ray cluster; default: RAY_ADDRESS, or the cluster that this machine belongs to",
    )
    group.add_argument(
        "--local", action="store_true", help="start a cluster on this machine that ends with this command"
    )
    sources.add_options(parser, serve=True)
    return parser


def _pair(text: str) -> tuple[int, int]:
    fewest, _, most = text.partition(",")
    if not (fewest.strip().isdecimal() and most.strip().isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not MIN,MAX, such as 1,8")
    return int(fewest), int(most)


def run(arguments: list[str]) -> int:
    args = _parser().parse_args(arguments)
    settings = sources.load(requested_options(args), args.config)
    configure_quiet_logging(settings)
    if not settings.api_key and settings.api_key_file is None:
        warn_if_public(settings)
    deployment = Deployment.of(
        settings,
        replicas=args.replicas,
        autoscale=args.autoscale,
        ingresses=args.ingresses,
        cpus=args.replica_cpus,
        gpus=args.replica_gpus,
        stream_interval_ms=args.stream_interval_ms,
    )
    if args.action == "config":
        sys.stdout.write(serve_config(deployment))
        return 0
    if settings.tls_cert is not None:
        Certificate(settings.tls_cert, settings.tls_key)  # else Ray would start proxies again and again
    try:
        from server.replicas.application import deploy
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "ray":
            raise
        raise ConfigError("ggserve ray deploy needs Ray: pip install 'ggserve[ray]'") from error
    try:
        deploy(deployment, "local" if args.local else args.address, os.environ.get(PASSWORD_VARIABLE))
    except ConnectionError as error:
        hint = "start one with `ray start --head`, name one with --address, or use --local"
        raise ConfigError(f"no Ray cluster was found: {hint}") from error
    scheme = "http" if settings.tls_cert is None else "https"
    url = f"{scheme}://{settings.host}:{settings.port}"
    sys.stderr.write(f"serving on {url}; `serve status` shows the replicas\n")
    if args.local:
        threading.Event().wait()  # until Ctrl-C
    return 0


def serve_config(deployment: Deployment) -> str:
    """A config file for `serve deploy` and KubeRay. Raises ConfigError for API keys, which would be readable
    in it.
    """
    if deployment.base_settings.api_key:
        raise ConfigError("--api-key would be readable in the file; use --api-key-file")
    config: dict[str, Any] = {
        "proxy_location": "EveryNode",
        "http_options": deployment.http_options,
        "applications": [
            {
                "name": "ggserve",
                "route_prefix": "/",
                "import_path": "server.replicas.application:build",
                "args": deployment.model_dump(mode="json", exclude_defaults=True),
            }
        ],
    }
    return yaml.safe_dump(config, sort_keys=False)
