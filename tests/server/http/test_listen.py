"""Several addresses on one port."""

from __future__ import annotations

import socket

import pytest

from engine.errors import ConfigError
from server.cli.serve import listen


def test_several_addresses_share_one_port():
    try:
        sockets = listen("127.0.0.1, ::1", 0)
    except ConfigError as error:
        if "::1" in str(error):
            pytest.skip("no IPv6 here")
        raise
    assert [sock.family for sock in sockets] == [socket.AF_INET, socket.AF_INET6]
    assert len({sock.getsockname()[1] for sock in sockets}) == 1
    for sock in sockets:
        sock.close()


def test_an_address_that_cannot_be_closes_those_before():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}.*choose another"):
            listen("127.0.0.2,127.0.0.1", port)
    for sock in listen("127.0.0.2", port):  # it is free again
        sock.close()
