"""Real clients against a real server: `GGSERVE_CLIENTS=1 python -m pytest tests/clients/live`.

They are installed from `requirements.txt` and `node/package.json` (docs/clients.md), into an environment that
also has ggserve; those of `requirements-NAME.txt` install themselves (`support/client_environments.py`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.client_environments import LIMIT_S
from support.real_models import smollm2_path
from support.server_process import ServerProcess

HERE = Path(__file__).parent
# Nothing that a client says of itself leaves the machine.
_QUIET = {
    "ANONYMIZED_TELEMETRY": "false",
    "CONTINUE_CLI_ENABLE_TELEMETRY": "0",
    "DO_NOT_TRACK": "1",
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
    "OPENAI_API_KEY": "none",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.filterwarnings("ignore"))  # those of the clients' own dependencies
            item.add_marker(pytest.mark.real)
            item.add_marker(pytest.mark.timeout(2 * LIMIT_S))  # the first test may install its client


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in _QUIET.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    """The address of a server of SmolLM2, which answers to any model's name."""
    if address := os.environ.get("GGSERVE_CLIENTS_URL"):
        yield address
        return
    options = ("--any-model", "--seed", "1", "--default", "temperature=0", "--default", "max_tokens=200")
    with ServerProcess("-m", f"smollm2={smollm2_path()}", *options) as process:
        yield process.url
