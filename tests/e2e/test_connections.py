"""Clients that connect and say nothing leave room for those that ask."""

from __future__ import annotations

import http.client
import json
import socket
from urllib.parse import urlsplit

from support.server_process import ServerProcess


def test_idle_connections_beyond_the_limit_keep_nobody_out():
    with ServerProcess("--threads", "1", "--max-connections", "100") as server:
        address = urlsplit(server.url)
        user = http.client.HTTPConnection(address.netloc, timeout=60)
        idle = []
        for _ in range(10):
            idle += [socket.create_connection((address.hostname, address.port)) for _ in range(40)]
            body = json.dumps({"prompt": "Once", "max_tokens": 2})
            user.request("POST", "/v1/completions", body, {"content-type": "application/json"})
            answer = user.getresponse()
            assert answer.status == 200, answer.read()
            assert json.load(answer)["usage"]["completion_tokens"] == 2
        user.close()
        for each in idle:
            each.close()
