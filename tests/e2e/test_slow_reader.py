"""A client that reads a byte a second is dropped in time; meanwhile others notice nothing."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import closing, suppress
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import psutil

from support.server_process import ServerProcess

MIB = 1 << 20
# With every token come the probabilities of many others, so that buffers are soon full.
SLOW = {"prompt": "Once upon a time", "ignore_eos": True, "stream": True, "n_probs": 20}
OTHER = {"prompt": "The little dog", "ignore_eos": True, "max_tokens": 300, "temperature": 0}


def post(server: ServerProcess, **fields: Any) -> Any:
    body = json.dumps(fields).encode()
    request = Request(server.url + "/v1/completions", body, {"content-type": "application/json"})
    with urlopen(request, timeout=120) as reply:
        return json.load(reply)


def test_reader_of_a_byte_a_second_is_disconnected_and_others_are_unaffected():
    options = ("--threads", "1", "--context-size", "100000", "--parallel", "2", "--send-timeout-s", "5")
    with ServerProcess(*options) as server:
        address = urlsplit(server.url)
        alone = post(server, **OTHER)["choices"][0]["text"]
        body = json.dumps(SLOW).encode()
        kind = "host: localhost\r\ncontent-type: application/json"
        head = f"POST /completion HTTP/1.1\r\n{kind}\r\ncontent-length: {len(body)}\r\n\r\n"
        stop = threading.Event()
        process = psutil.Process(server.process.pid)
        with closing(socket.socket()) as slow:
            slow.settimeout(10)
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.connect((address.hostname, address.port))
            slow.sendall(head.encode() + body)
            assert slow.recv(12) == b"HTTP/1.1 200"

            def read() -> None:
                with suppress(ConnectionError, TimeoutError):
                    while not stop.is_set() and slow.recv(1):
                        stop.wait(1)

            reader = threading.Thread(target=read)
            reader.start()
            before = process.memory_info().rss
            texts = []
            while not any(
                "the client did not read for 5 s: disconnected" in line for line in list(server.lines)
            ):
                texts.append(post(server, **OTHER)["choices"][0]["text"])
                assert len(texts) < 300
            assert process.memory_info().rss - before < 32 * MIB
            stop.set()
            reader.join()
        assert set(texts) == {alone}
        assert not server.get("/v1/requests")["data"]
        line = server.wait_for(r"status=499 .*error=(\w+)")
        assert line[1] == "client_too_slow"
        assert server.end() == 0
