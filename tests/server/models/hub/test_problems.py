"""What went wrong with the Hub, in words that say what to do."""

from __future__ import annotations

import errno
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants, file_download

from server.models.errors import DownloadError
from server.models.hub import download
from server.models.hub.problems import explain, explained, no_space
from server.models.progress import ignore
from server.models.reference import NamedModel
from support.fakes.hub import FakeHub, Repo, use_hub
from support.hub_pulls import pull


def test_a_gated_repository_needs_a_token(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    message = rf"me/Gated-GGUF is gated: accept its terms at {hub.url}/me/Gated-GGUF, then .*HF_TOKEN"
    with pytest.raises(DownloadError, match=message):
        pull("me/Gated-GGUF")
    monkeypatch.setenv("HF_TOKEN", hub.token)
    path, _ = pull("me/Gated-GGUF")
    assert path.is_file()


def test_missing_network_error_points_to_ggserve_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as removed:
        port = removed.getsockname()[1]
    use_hub(f"http://127.0.0.1:{port}", tmp_path, monkeypatch)
    with pytest.raises(DownloadError, match=rf"cannot reach http://127\.0\.0\.1:{port} .*`ggserve list`"):
        pull("me/Plain-GGUF")


class _SignIn(BaseHTTPRequestHandler):
    """Answers every request with a page, as hotel networks do."""

    def do_GET(self) -> None:
        page = b"<html>Sign in</html>"
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *arguments: object) -> None:
        """Not on stderr."""


def test_html_page_instead_of_the_hub_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with HTTPServer(("127.0.0.1", 0), _SignIn) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        use_hub(f"http://127.0.0.1:{server.server_port}", tmp_path, monkeypatch)
        with pytest.raises(DownloadError, match="does not answer as a Hub does; check HF_ENDPOINT"):
            pull("me/Plain-GGUF")
        server.shutdown()


def test_offline_mode_is_named_in_the_error(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError, match=r"me/Plain-GGUF is not on this .*HF_HUB_OFFLINE is set"):
        pull("me/Plain-GGUF")
    assert hub.requests == []


def test_disk_that_fills_up_during_a_download_leaves_nothing(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(file_download, "http_get", full)
    with pytest.raises(DownloadError, match=r"the disk of .* is full; free some space"):
        pull("me/Plain-GGUF")
    assert not list(Path(constants.HF_HUB_CACHE).rglob("*.incomplete"))


def test_hub_failure_is_reported_with_its_status(hub: FakeHub) -> None:
    hub.repos["me/Gone"] = Repo({"gone-Q4_K_M.gguf": b"GGUF"})
    plan = download.prepare(NamedModel("hf", "me/Gone"), lambda: None)
    hub.repos["me/Gone"] = Repo({})
    with pytest.raises(DownloadError, match="me/Gone changed during the download; pull it again"):
        download.download(plan, ignore)


def test_explain_passes_on_errors_other_than_the_hubs() -> None:
    assert explain(ValueError("x"), "me/x") is None
    with pytest.raises(ZeroDivisionError), explained("me/x"):
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "is full; free some space"),
        (OSError(errno.EACCES, "Permission denied", "/a/b"), "^/a/b: Permission denied$"),
        (OSError("Consistency check failed"), "does not have the size that .* states; pull it again"),
    ],
)
def test_explain_describes_disk_failures(error: OSError, message: str) -> None:
    assert re.search(message, str(explain(error, "me/x")))


def test_no_space_names_both_sizes_and_the_folder() -> None:
    text = str(no_space("me/x", 2 * 10**9, 10**6, Path("/cache")))
    assert text.startswith("me/x needs 2.00 GB of disk space, but only 1 MB are free in /cache; free some")
