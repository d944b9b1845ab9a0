"""What `ggserve serve` prepares: several addresses on one port, and enough open files."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from engine.errors import ConfigError
from server.cli import BEGAN
from server.cli.serving import listen, registry_of, serve
from server.config.settings import Settings


def can_bind_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def test_several_addresses_share_one_port():
    sockets = listen("127.0.0.1, 127.0.0.2", 0)
    hosts, ports = zip(*(sock.getsockname() for sock in sockets), strict=True)
    for sock in sockets:
        sock.close()
    assert hosts == ("127.0.0.1", "127.0.0.2")
    assert len(set(ports)) == 1


def test_ipv4_and_ipv6_share_one_port_or_the_error_names_the_unavailable_address():
    if not can_bind_ipv6():
        with pytest.raises(ConfigError, match=r"cannot listen on ::1:\d+"):
            listen("127.0.0.1, ::1", 0)
        return
    sockets = listen("127.0.0.1, ::1", 0)
    families, ports = zip(*((sock.family, sock.getsockname()[1]) for sock in sockets), strict=True)
    for sock in sockets:
        sock.close()
    assert families == (socket.AF_INET, socket.AF_INET6)
    assert len(set(ports)) == 1


def test_unavailable_address_closes_those_already_open():
    with socket.create_server(("127.0.0.1", 0)) as accepted:
        port = accepted.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}.*choose another"):
            listen("127.0.0.2,127.0.0.1", port)
    for sock in listen("127.0.0.2", port):  # it is free again
        sock.close()


def test_a_folder_of_models_needs_no_model(tmp_path):
    registry = registry_of(Settings(models_dir=tmp_path, models_memory="1G", sleep_idle_seconds=5))
    assert registry.models == {}
    assert (registry.policy.folder, registry.policy.idle_s) == (tmp_path, 5)
    assert (registry.capacity.max_models, registry.capacity.memory) == (4, 1 << 30)
    with pytest.raises(ConfigError, match="is not a directory"):
        registry_of(Settings(models_dir=tmp_path / "absent"))


def test_configured_models_are_all_loaded_unless_limited_by_number():
    both = ["a=a.gguf", "b=b.gguf"]
    assert [*registry_of(Settings(model=both)).engines] == ["a", "b"]
    assert [*registry_of(Settings(model=both, models_max=1)).engines] == ["a"]
    assert registry_of(Settings(model=both, no_models_autoload=True)).policy.autoload is False


def test_engine_starts_before_the_server_is_imported():
    code = "import sys, server.cli.serving; print({'numpy', 'fastapi', 'uvicorn'} & {*sys.modules})"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"


def test_serving_text_models_imports_no_numpy():
    code = "import sys, server.cli.serving, server.app, server.http.server; print('numpy' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"


def test_time_until_ready_includes_the_imports(monkeypatch, tmp_path):
    class Server:
        def __init__(self, app, sockets, progress, began, *_) -> None:
            assert began == BEGAN

        def run_to_end(self, loop_factory) -> int:
            return 77

    monkeypatch.setattr("server.http.server.HttpServer", Server)
    assert serve(["--port", "0", "--models-dir", str(tmp_path)], None) == 77
    ours = "[name for name in sys.modules if name.startswith(('server', 'engine'))]"
    code = f"import sys, server.cli; print(*{ours})"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "server server.cli\n"
