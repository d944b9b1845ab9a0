"""`ggserve rpc-worker`: lends this machine's devices to an engine on another one, over ggml's RPC."""

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
  ggserve rpc-worker                                  on 127.0.0.1:{DEFAULT_PORT}, for an ssh tunnel:
  ssh -N -L {DEFAULT_PORT}:127.0.0.1:{DEFAULT_PORT} worker           on the machine that serves; and there
  ggserve serve --rpc 127.0.0.1:{DEFAULT_PORT} --model m.gguf"""


def _parser() -> Parser:
    description = (
        "Lend this machine's devices to one engine at a time. The protocol has no password and no\n"
        "encryption, and whoever reaches it can write this process's memory: keep it on a loopback\n"
        "address, in a tunnel."
    )
    parser = Parser("ggserve rpc-worker", description, EXAMPLES)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help=f"port (default: {DEFAULT_PORT})")
    devices = "a device to lend (repeatable; default: all GPUs, else the CPU; see ggserve devices)"
    parser.add_argument("--device", action="append", default=[], metavar="NAME", help=devices)
    parser.add_argument("--threads", type=int, help="threads of the CPU (default: its physical cores)")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="keep large tensors here for the next time")
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
    chosen = _devices(args.device)
    from engine.ggml.backend import serve_rpc

    failed, done = threading.Event(), threading.Event()

    def serve() -> None:
        serve_rpc(f"{args.host}:{args.port}", chosen, args.threads or physical_cores(), args.cache)
        failed.set()
        done.set()

    sys.stderr.write(f"lending {', '.join(d.name for d in chosen)} on {args.host}:{args.port}\n")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: done.set())
    # ggml's loop knows no end: this thread waits for the signal, and the process goes with it. It looks up
    # now and then, since a signal that reaches another thread wakes nobody.
    threading.Thread(target=serve, daemon=True).start()
    while not done.wait(0.2):
        pass
    sys.stdout.flush()
    if failed.is_set():
        sys.stderr.write("ggserve: the RPC server ended by itself; see above\n")
    sys.stderr.flush()
    os._exit(1 if failed.is_set() else 0)


def _check_address(host: str, port: int, public: bool) -> None:
    """ConfigError for an address that others reach, unless that is wanted, and for one that is taken."""
    if not 0 < port < 1 << 16:
        raise ConfigError(f"--port is {port}; it must be 1 to 65535")
    try:
        address = ipaddress.ip_address(socket.gethostbyname(host))
    except OSError as error:
        raise ConfigError(f"--host {host} is no address of this machine: {error.strerror}") from None
    if not address.is_loopback and not public:
        raise ConfigError(
            f"--host {host} can be reached from other machines, and the protocol asks for no password; "
            "use an ssh tunnel to 127.0.0.1, or --i-know-this-is-unauthenticated"
        )
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((str(address), port))
        except OSError as error:
            raise ConfigError(f"{host}:{port} cannot be listened on: {error.strerror}") from None


def _devices(names: list[str]) -> list[Any]:
    from engine.ggml.backend import devices

    found = {d.name.lower(): d for d in devices()}
    for name in names:
        if name.lower() not in found:
            there = ", ".join(d.name for d in found.values())
            raise DeviceError(f"there is no device {name}; there are {there}")
    if names:
        return [found[name.lower()] for name in names]
    gpus = [d for d in found.values() if d.type in ("gpu", "igpu")]
    return gpus or [d for d in found.values() if d.type == "cpu"]
