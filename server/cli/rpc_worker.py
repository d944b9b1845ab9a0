"""`ggserve rpc-worker`: serves this machine's devices over RPC to an engine on another machine."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

from engine.errors import ConfigError, DeviceError
from engine.host import physical_cores
from engine.model.rpc import DEFAULT_PORT
from server.cli.command import Parser

EXAMPLES = f"""\
  ggserve rpc-worker                                    on 127.0.0.1:{DEFAULT_PORT}, for an ssh tunnel:
  ssh -N -L {DEFAULT_PORT}:127.0.0.1:{DEFAULT_PORT} worker                on the other machine, followed by
  ggserve serve --rpc 127.0.0.1:{DEFAULT_PORT} --model m.gguf"""


def _parser() -> Parser:
    description = (
        "Serve this machine's devices over RPC to one engine at a time. The protocol has no authentication\n"
        "and no encryption, and a client can write to the memory of this process: keep it on a loopback\n"
        "address behind a tunnel."
    )
    parser = Parser("ggserve rpc-worker", description, EXAMPLES)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help=f"port (default: {DEFAULT_PORT})")
    devices = "a device to serve; may be repeated (default: all GPUs, otherwise the CPU; see ggserve devices)"
    parser.add_argument("--device", action="append", default=[], metavar="NAME", help=devices)
    parser.add_argument("--threads", type=int, help="CPU threads (default: physical cores)")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="cache large tensors in this directory")
    parser.add_argument(
        "--i-know-this-is-unauthenticated",
        action="store_true",
        dest="public",
        help="allow an address that other machines can reach",
    )
    return parser


def run(arguments: list[str]) -> int:
    args = _parser().parse_args(arguments)
    _check_address(args.host, args.port, args.public)
    if args.threads is not None and args.threads < 1:
        raise ConfigError(f"--threads is {args.threads}; it must be at least 1")
    if args.cache is not None:
        args.cache.mkdir(parents=True, exist_ok=True)
    devices = _devices(args.device)
    from engine.ggml.backend import serve_rpc

    failed, done = threading.Event(), threading.Event()

    def serve() -> None:
        serve_rpc(f"{args.host}:{args.port}", devices, args.threads or physical_cores(), args.cache)
        failed.set()
        done.set()

    sys.stderr.write(f"serving {', '.join(d.name for d in devices)} on {args.host}:{args.port}\n")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: done.set())
    # ggml's loop cannot be ended: this thread waits for a signal and then exits the process. It polls,
    # since a signal that is delivered to another thread does not wake it.
    threading.Thread(target=serve, daemon=True).start()
    while not done.wait(0.2):
        pass
    sys.stdout.flush()
    if failed.is_set():
        sys.stderr.write("ggserve: the RPC server has stopped unexpectedly; see above\n")
    sys.stderr.flush()
    os._exit(1 if failed.is_set() else 0)


def _check_address(host: str, port: int, public: bool) -> None:
    """Raises ConfigError for an address in use and, unless `public`, one that other machines can reach."""
    if not 0 < port < 1 << 16:
        raise ConfigError(f"--port is {port}; it must be 1 to 65535")
    try:
        address = ipaddress.ip_address(socket.gethostbyname(host))
    except OSError as error:
        raise ConfigError(f"--host {host} is not an address of this machine: {error.strerror}") from None
    if not address.is_loopback and not public:
        raise ConfigError(
            f"--host {host} can be reached from other machines, and the protocol has no authentication; "
            "use an ssh tunnel to 127.0.0.1, or --i-know-this-is-unauthenticated"
        )
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((str(address), port))
        except OSError as error:
            raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}") from None


def _devices(names: list[str]) -> list[Any]:
    from engine.ggml.backend import devices

    by_name = {d.name.lower(): d for d in devices()}
    for name in names:
        if name.lower() not in by_name:
            available = ", ".join(d.name for d in by_name.values())
            raise DeviceError(f"unknown device {name}; available: {available}")
    if names:
        return [by_name[name.lower()] for name in names]
    gpus = [d for d in by_name.values() if d.type in ("gpu", "igpu")]
    return gpus or [d for d in by_name.values() if d.type == "cpu"]
