"""Why pyproject.toml bounds uvicorn: `server.http` overrides methods that uvicorn does not document.

A release that renames one of them, or calls it in another way, would switch a limit off without any error. So
the upper bound is raised only together with this test.
"""

from __future__ import annotations

import inspect
import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from server.http.protocol import LimitedProtocol
from server.http.server import HttpServer
from server.http.tls import TlsProtocol

PYPROJECT = Path(__file__).parents[3] / "pyproject.toml"
OVERRIDDEN = [
    (LimitedProtocol, HttpToolsProtocol, "connection_made", ["self", "transport"]),
    (LimitedProtocol, HttpToolsProtocol, "connection_lost", ["self", "exc"]),
    (LimitedProtocol, HttpToolsProtocol, "eof_received", ["self"]),
    (LimitedProtocol, HttpToolsProtocol, "data_received", ["self", "data"]),
    (LimitedProtocol, HttpToolsProtocol, "on_headers_complete", ["self"]),
    (LimitedProtocol, HttpToolsProtocol, "on_message_complete", ["self"]),
    (LimitedProtocol, HttpToolsProtocol, "on_response_complete", ["self"]),
    (LimitedProtocol, HttpToolsProtocol, "pause_writing", ["self"]),
    (LimitedProtocol, HttpToolsProtocol, "resume_writing", ["self"]),
    (LimitedProtocol, HttpToolsProtocol, "timeout_keep_alive_handler", ["self"]),
    (LimitedProtocol, HttpToolsProtocol, "shutdown", ["self"]),
    (LimitedProtocol, HttpToolsProtocol, "send_400_response", ["self", "msg"]),
    (LimitedProtocol, HttpToolsProtocol, "_unsupported_upgrade_warning", ["self"]),
    (TlsProtocol, HttpToolsProtocol, "connection_made", ["self", "transport"]),
    (TlsProtocol, HttpToolsProtocol, "connection_lost", ["self", "exc"]),
    (TlsProtocol, HttpToolsProtocol, "data_received", ["self", "data"]),
    (HttpServer, uvicorn.Server, "startup", ["self", "sockets"]),
    (HttpServer, uvicorn.Server, "shutdown", ["self", "sockets"]),
    (HttpServer, uvicorn.Server, "capture_signals", ["self"]),
]
IDS = [f"{ours.__name__}.{name}" for ours, _, name, _ in OVERRIDDEN]


@pytest.mark.parametrize(("ours", "theirs", "name", "parameters"), OVERRIDDEN, ids=IDS)
def test_an_overridden_method_exists_with_the_expected_signature(ours, theirs, name, parameters):
    for owner in (ours, theirs):
        method = vars(owner)[name]
        assert list(inspect.signature(method).parameters) == parameters
    assert inspect.iscoroutinefunction(vars(ours)[name]) == inspect.iscoroutinefunction(vars(theirs)[name])


def test_list_of_overridden_methods_is_complete():
    for ours, theirs in {pair[:2] for pair in OVERRIDDEN}:
        both = {
            name for name, value in vars(ours).items() if inspect.isfunction(value) and hasattr(theirs, name)
        }
        listed = {name for owner, _, name, _ in OVERRIDDEN if owner is ours}
        assert both - {"__init__"} == listed


@pytest.mark.parametrize("attribute", ["transport", "connections", "loop", "server_state", "pipeline"])
def test_an_attribute_that_the_protocol_uses_is_set_by_uvicorn(attribute):
    assert re.search(rf"self\.{attribute}\b.* = ", inspect.getsource(HttpToolsProtocol))


@pytest.mark.parametrize("attribute", ["response_started", "response_complete", "more_body", "keep_alive"])
def test_an_attribute_of_a_request_that_the_protocol_uses_is_set_by_uvicorn(attribute):
    assert re.search(rf"self\.{attribute}\b.* = ", inspect.getsource(RequestResponseCycle))


def test_the_installed_release_is_within_the_bound():
    dependencies = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]
    (requirement,) = [line for line in dependencies if line.startswith("uvicorn")]
    upper = re.search(r"<(\d+)\.(\d+)$", requirement)
    assert upper, f"{requirement} has no upper bound"
    installed = tuple(map(int, metadata.version("uvicorn").split(".")[:2]))
    assert installed < (int(upper[1]), int(upper[2]))
