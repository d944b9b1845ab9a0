"""Remote devices through ggml's RPC backend. Workers are checked first: ggml's client aborts on failure.

The protocol has neither encryption nor authentication: use it on a loopback address or inside a tunnel.
"""

from __future__ import annotations

import socket
import struct

from engine.errors import ConfigError, DeviceError

# ggml-rpc.h of the pinned ggml; a worker must have the same major version.
MAJOR = 7
DEFAULT_PORT = 50052
_HELLO, _CAPS = 14, 24
_TIMEOUT = 5.0
# Heads for which all of ggml's GPU backends have flash attention, and ours.
_FLASH_HEADS = (64, 80, 96, 112, 128, 256)


def supports_flash_attention(head_dim_k: int, head_dim_v: int) -> bool:
    """Whether every worker's device has flash attention for these heads.

    ggml's client claims support for every operation without asking the worker; a device that lacks one ends
    its worker or computes something else.
    """
    return head_dim_k == head_dim_v and head_dim_k in _FLASH_HEADS


def split_address(address: str) -> tuple[str, int]:
    """The host and port of HOST:PORT. Raises ConfigError for an address in another form."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise ConfigError(f"rpc: expected HOST:PORT, such as 127.0.0.1:{DEFAULT_PORT}, not {address!r}")
    return host.strip("[]"), int(port)


def handshake(address: str) -> None:
    """Check that a worker of our protocol version answers at HOST:PORT. Raises DeviceError, which says what
    is wrong.
    """
    host, port = split_address(address)
    advice = f"start one there with `ggserve rpc-worker --port {port}`"
    try:
        with socket.create_connection((host, port), timeout=_TIMEOUT) as connection:
            connection.settimeout(_TIMEOUT)
            connection.sendall(struct.pack("<BQ", _HELLO, _CAPS) + bytes(_CAPS))
            answer = b""
            while len(answer) < 12 and (more := connection.recv(64)):
                answer += more
    except TimeoutError:
        raise DeviceError(
            f"rpc: {address} does not answer within {_TIMEOUT:.0f} s; a worker serves one engine at a time: "
            "is another one connected?"
        ) from None
    except OSError as error:
        raise DeviceError(f"rpc: no worker at {address} ({error.strerror or error}); {advice}") from None
    if len(answer) < 12 or struct.unpack_from("<Q", answer)[0] != 4 + _CAPS:
        raise DeviceError(f"rpc: the server at {address} is not an RPC worker of this protocol; {advice}")
    if answer[8] != MAJOR:
        raise DeviceError(
            f"rpc: the worker at {address} speaks version {answer[8]} of the protocol, this engine {MAJOR}; "
            "install the same ggserve on both"
        )
