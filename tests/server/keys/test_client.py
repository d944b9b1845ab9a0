"""What clients may see: tests/server/keys/test_key_ring.py has the rules, this the routes."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from server.worker.requests.slots import Slots
from support.api.http import COMPLETIONS, client, error_of
from support.fakes.engine import FakeEngine, make_app
from support.waiting import until

pytestmark = pytest.mark.asyncio

CLIENTS = ("alice", "bob", "ops")


def key(name):
    return {"authorization": f"Bearer {name}-key"}


@asynccontextmanager
async def three_clients(tmp_path, engine):
    """A server on which a request of alice runs, named `hers`."""
    file = tmp_path / "keys"
    file.write_text("alice-key name=alice\nbob-key name=bob\nops-key name=ops role=admin\n")
    file.chmod(0o600)
    async with client(make_app(engine, api_key_file=file, slot_save_path=tmp_path)) as http:
        body = {"prompt": "Once upon", "seed": 4711}
        headers = {**key("alice"), "x-request-id": "hers"}
        running = asyncio.create_task(http.post(COMPLETIONS, json=body, headers=headers))
        await until(lambda: engine.stats.running)
        yield http
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def endless():
    engine = FakeEngine(delay_s=0.01, eos=False)
    engine.reply = [11] * 100_000
    engine.slots = Slots(2)
    return engine


async def test_running_requests_are_listed_only_for_their_client_and_admins(tmp_path):
    async with three_clients(tmp_path, endless()) as http:
        listed = {}
        for name in CLIENTS:
            rows = (await http.get("/v1/requests", headers=key(name))).json()["data"]
            listed[name] = [(row["request_id"], row["key"]) for row in rows]
        assert listed == {"alice": [("hers", "alice")], "bob": [], "ops": [("hers", "alice")]}


async def test_only_their_client_and_admins_can_cancel_requests(tmp_path):
    engine = endless()
    async with three_clients(tmp_path, engine) as http:
        refused = await http.delete("/v1/requests/hers", headers=key("bob"))
        unknown = await http.delete("/v1/requests/other", headers=key("bob"))
        assert error_of(refused, 404)["code"] == error_of(unknown, 404)["code"] == "request_not_found"
        assert engine.stats.running
        assert (await http.delete("/v1/requests/hers", headers=key("ops"))).status_code == 200
        await until(lambda: not engine.stats.running)
    async with three_clients(tmp_path, endless()) as http:
        assert (await http.delete("/v1/requests/hers", headers=key("alice"))).status_code == 200


async def test_slots_of_other_clients_show_only_that_they_are_busy(tmp_path):
    async with three_clients(tmp_path, endless()) as http:
        shown = {name: (await http.get("/slots", headers=key(name))).json() for name in CLIENTS}
        assert [slot["is_processing"] for slot in shown["bob"]] == [True, False]
        assert set(shown["bob"][0]) == {"id", "n_ctx", "speculative", "is_processing"}
        for name in ("alice", "ops"):
            assert shown[name][0]["params"]["seed"] == 4711


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/slots/0?action=erase", {}),
        ("POST", "/lora-adapters", []),
        ("POST", "/api/pull", {"model": "x"}),
        ("DELETE", "/api/delete", {"model": "x"}),
    ],
)
async def test_settings_that_affect_every_client_need_an_admin(tmp_path, method, path, body):
    async with three_clients(tmp_path, endless()) as http:
        refused = await http.request(method, path, json=body, headers=key("alice"))
        assert refused.status_code == 403
        assert "role admin" in str(refused.json()["error"])
        passed = await http.request(method, path, json=body, headers=key("ops"))
        assert "role admin" not in passed.text


async def test_the_log_names_the_client(tmp_path, caplog):
    caplog.set_level("INFO", "ggserve.access")
    async with three_clients(tmp_path, endless()) as http:
        await http.get("/v1/models", headers=key("bob"))
        await http.get("/v1/models", headers=key("eve"))
    lines = [record.getMessage() for record in caplog.records if "path=/v1/models" in record.getMessage()]
    assert "key=bob" in lines[0]
    assert "key=" not in lines[1]
    assert "bob-key" not in caplog.text


async def test_cache_isolation_and_salts_reach_the_engine(tmp_path):
    engine = FakeEngine()
    app = make_app(engine, api_key=["alice-key", "bob-key"], cache_isolation="key")
    async with client(app) as http:
        for name in ("alice", "bob"):
            for salt in ({}, {"cache_salt": "ours"}):
                body = {"prompt": "Once upon", "max_tokens": 1, "prompt_logprobs": 0, **salt}
                assert (await http.post(COMPLETIONS, json=body, headers=key(name))).status_code == 200
    salts = [request.cache_salt for request in engine.seen]
    assert len(set(salts)) == 4
    assert [work.salt for work in engine.works] == salts


async def test_client_and_priority_of_a_request_reach_the_engine(tmp_path, caplog):
    caplog.set_level("INFO", "ggserve.access")
    file = tmp_path / "keys"
    file.write_text(
        "alice-key name=alice weight=3 priority=-2\nbob-key name=bob\nops-key name=ops role=admin\n"
    )
    file.chmod(0o600)
    engine = FakeEngine()
    async with client(make_app(engine, api_key_file=file)) as http:
        for name, fields in (
            ("alice", {}),
            ("alice", {"priority": 7}),
            ("alice", {"priority": -2}),
            ("bob", {"priority": 0}),
            ("ops", {"priority": -1000}),
        ):
            body = {"prompt": "Once upon", "max_tokens": 1, **fields}
            assert (await http.post(COMPLETIONS, json=body, headers=key(name))).status_code == 200
        for name, priority in (("alice", -3), ("bob", -1)):
            body = {"prompt": "Once upon", "priority": priority}
            error = error_of(await http.post(COMPLETIONS, json=body, headers=key(name)), 400)
            least = {"alice": -2, "bob": 0}[name]
            assert error["message"].startswith(
                f"priority: must be {least} to 1000 with this key, not {priority}"
            )
            assert (error["param"], error["code"]) == ("priority", "invalid_value")
        body = {"model": "stories", "prompt": "Once", "options": {"priority": -1}}
        refused = await http.post("/api/generate", json=body, headers=key("bob"))
        assert refused.json()["error"].startswith("options.priority: must be 0 to 1000")
    shares = [(request.client, request.weight, request.priority) for request in engine.seen]
    assert shares == [("alice", 3, -2), ("alice", 3, 7), ("alice", 3, -2), ("bob", 1, 0), ("ops", 1, -1000)]
    logged = [record.fields.get("priority") for record in caplog.records]
    assert logged[:5] == [-2, 7, -2, None, -1000]


@pytest.mark.parametrize("priority", [-1001, 1001, 0.5, "high"])
async def test_invalid_priority_is_refused(priority):
    engine = FakeEngine()
    async with client(make_app(engine)) as http:
        error = error_of(await http.post(COMPLETIONS, json={"prompt": "Once", "priority": priority}), 400)
        assert error["param"] == "priority"
        ok = await http.post(COMPLETIONS, json={"prompt": "Once", "priority": -1000, "max_tokens": 1})
        assert ok.status_code == 200
    assert [(request.client, request.priority) for request in engine.seen] == [("", -1000)]


async def test_the_list_of_requests_shows_their_priority(tmp_path):
    engine = endless()
    async with client(make_app(engine)) as http:
        body = {"prompt": "Once upon", "priority": 4}
        running = asyncio.create_task(http.post(COMPLETIONS, json=body))
        await until(lambda: engine.stats.running)
        assert [row["priority"] for row in (await http.get("/v1/requests")).json()["data"]] == [4]
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
