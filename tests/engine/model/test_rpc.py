"""Workers are checked before ggml connects to them."""

from __future__ import annotations

import socket
import struct
import threading

import pytest

import engine
from engine.errors import ConfigError, DeviceError
from engine.model import rpc
from support.builders.golden import golden


def answering(data: bytes) -> str:
    """The address of something that says `data` to the first who comes."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with server, server.accept()[0] as connection:
            connection.recv(64)
            connection.sendall(data)

    threading.Thread(target=serve, daemon=True).start()
    return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "is not an RPC worker"),
        (b"", "is not an RPC worker"),
        (struct.pack("<Q4B", 28, 6, 0, 0, 0) + bytes(24), "speaks version 6"),
    ],
)
def test_invalid_worker_is_refused(data: bytes, message: str) -> None:
    params = engine.ModelParameters(rpc=(answering(data),), context_size=64)
    with pytest.raises(DeviceError, match=message):
        engine.load(golden("gpt2").path, params)


def test_handshake_without_a_worker_names_the_command() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(DeviceError, match=rf"no worker at 127.0.0.1:{port}.*rpc-worker --port {port}"):
        rpc.handshake(f"127.0.0.1:{port}")


def test_handshake_without_an_answer_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(DeviceError, match=r"does not answer.*one engine at a time"):
            rpc.handshake(address)


@pytest.mark.parametrize("address", ["", "host", "host:", ":50052", "host:0", "host:70000", "host:abc"])
def test_split_address_of_an_invalid_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="HOST:PORT"):
        rpc.split_address(address)


@pytest.mark.parametrize(
    ("address", "expected"),
    [("host:1", ("host", 1)), ("127.0.0.1:65535", ("127.0.0.1", 65535)), ("[::1]:50052", ("::1", 50052))],
)
def test_split_address_removes_brackets(address: str, expected: tuple[str, int]) -> None:
    assert rpc.split_address(address) == expected


def test_handshake_with_a_worker_of_our_version_passes() -> None:
    rpc.handshake(answering(struct.pack("<Q4B", 28, rpc.MAJOR, 0, 0, 0) + bytes(24)))


@pytest.mark.parametrize(
    ("key", "value", "supported"), [(64, 64, True), (64, 128, False), (32, 32, False), (576, 512, False)]
)
def test_flash_attention_is_for_heads_that_every_worker_has(key: int, value: int, supported: bool) -> None:
    assert rpc.supports_flash_attention(key, value) == supported
