"""How long a model stays loaded, and who decides that."""

from __future__ import annotations

import pytest

from support.api.http import client
from support.fakes.engine import FakeEngine, make_folder_app
from support.waiting import until

pytestmark = pytest.mark.asyncio
GENERATE = "/api/generate"
KEYS = "user-key name=user\nadmin-key name=ops role=admin\n"


@pytest.fixture
def app(tmp_path):
    """Two models of a folder, and keys of both roles."""
    file = tmp_path / "keys"
    file.write_text(KEYS)
    file.chmod(0o600)
    return make_folder_app(FakeEngine(name="stories"), FakeEngine(name="b"), api_key_file=file)


async def ask(http, role: str | None = None, **fields):
    headers = {} if role is None else {"authorization": f"Bearer {role}-key"}
    return await http.post(GENERATE, json={"model": "stories", "stream": False, **fields}, headers=headers)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (0, 0),
        ("0", 0),
        ("0s", 0),
        (300, 300),
        ("5m", 300),
        ("1h30m", 5400),
        ("1.5s", 1.5),
        ("250ms", 0.25),
        (-1, None),
        ("-1m", None),
        ("+2s", 2),
        (2**31 - 1, 2**31 - 1),
    ],
)
async def test_keep_alive_takes_seconds_or_a_duration(value, seconds):
    app = make_folder_app(FakeEngine(name="stories"))
    async with client(app) as http:
        await ask(http, keep_alive=60)
        assert "warnings" not in (await ask(http, prompt="", keep_alive=value)).json()
        model = app.state.ggserve.registry.models["stories"]
        if seconds == 0:
            await until(lambda: model.state == "unloaded")
        else:
            assert model.keep_alive_s == seconds


async def test_keep_alive_takes_effect_only_for_administrators(app):
    async with client(app) as http:
        model = app.state.ggserve.registry.models["stories"]
        for value in (0, "5m", -1):
            answer = await ask(http, "user", prompt="Hi", keep_alive=value)
            assert answer.json()["warnings"] == [
                "keep_alive has no effect: it needs an API key with the role admin"
            ]
            assert model.keep_alive_s is None
        refused = await ask(http, "user", keep_alive=0)
        assert (refused.status_code, "role admin" in refused.json()["error"]) == (403, True)
        assert model.state == "ready"
        assert "warnings" not in (await ask(http, "admin", prompt="Hi", keep_alive=30)).json()
        assert model.keep_alive_s == 30
        assert (await ask(http, "admin", keep_alive=0)).json()["done_reason"] == "unload"
        await until(lambda: model.state == "unloaded")


async def test_next_load_of_a_model_uses_the_servers_keep_alive():
    app = make_folder_app(FakeEngine(name="stories"))
    async with client(app) as http:
        model = app.state.ggserve.registry.models["stories"]
        await ask(http, prompt="Hi", keep_alive=60)
        await ask(http, keep_alive=0)
        await until(lambda: model.state == "unloaded")
        await ask(http, prompt="Hi")
        assert model.keep_alive_s is None
