"""GET /props and /slots."""

from __future__ import annotations

import asyncio

import pytest

from engine.types import EngineStats
from server.worker.requests.slots import Slots
from support.api.http import Live, client, error_of
from support.fakes.engine import FakeEngine, make_app

pytestmark = pytest.mark.asyncio


def with_slots(n, **options):
    engine = FakeEngine(**options)
    engine.slots = Slots(n)
    return engine


async def test_props_show_the_defaults_of_a_request():
    async with client(make_app(with_slots(3), seed=42, default=["top_k=7"])) as http:
        props = (await http.get("/props")).json()
    selected = props["default_generation_settings"]
    assert (selected["n_ctx"], props["total_slots"], props["model_alias"]) == (512, 3, "stories")
    assert {name: selected["params"][name] for name in ("seed", "top_k", "temperature", "n_predict")} == {
        "seed": 42,
        "top_k": 7,
        "temperature": 0.8,
        "n_predict": -1,
    }
    assert props["chat_template"].startswith("{{ bos_token }}")
    assert props["chat_template_caps"]["supports_string_content"] is True
    assert (props["bos_token"], props["eos_token"]) == ("<s>", "</s>")
    assert props["modalities"] == {"vision": False, "audio": False, "video": False}
    assert (props["endpoint_slots"], props["endpoint_metrics"], props["endpoint_props"]) == (
        True,
        True,
        False,
    )


async def test_props_show_the_use_of_the_cache():
    engine = FakeEngine()
    engine.stats = EngineStats(
        cells_total=100, cells_used=5, cells_cached=9, window_rows_total=30, window_rows_used=4
    )
    async with client(engine) as http:
        assert (await http.get("/props")).json()["cache"] == {
            "cells_total": 100,
            "cells_used": 5,
            "cells_cached": 9,
            "window_rows_total": 30,
            "window_rows_used": 4,
            "window_rows_cached": 0,
        }


async def test_props_show_the_file_name_without_its_folder():
    async with client() as http:
        response = await http.get("/props")
    assert response.json()["model_path"] == "stories.gguf"
    assert "/secret" not in response.text
    assert response.json()["default_generation_settings"]["params"]["seed"] == 2**32 - 1  # random


async def test_props_cannot_be_changed():
    async with client() as http:
        assert error_of(await http.post("/props", json={}), 501)["code"] == "not_supported"


async def test_props_and_slots_show_whether_tokens_are_drafted():
    engine = with_slots(1, delay_s=0.01)
    app = make_app(engine, spec_type="ngram-simple")
    async with client(app) as http:
        props = (await http.get("/props")).json()
        assert props["default_generation_settings"]["params"]["speculative.types"] == "ngram-simple"
        assert (await http.get("/slots")).json()[0]["speculative"] is True
        live = Live(app, "/completion", {"prompt": "Once", "stream": True, "speculative.type": "none"})
        await live.until('"content"')
        (slot,) = (await http.get("/slots")).json()
        assert slot["speculative"] is False
        assert slot["params"]["speculative.types"] == "none"
        await live.finish()
    async with client(make_app(with_slots(1), draft_model="draft.gguf")) as http:
        props = (await http.get("/props")).json()
        assert props["default_generation_settings"]["params"]["speculative.types"] == "draft-simple"


async def test_slots_show_which_request_runs_in_each():
    engine = with_slots(2, delay_s=0.01)
    app = make_app(engine)
    async with client(app) as http:
        idle = (await http.get("/slots")).json()
        assert idle == [
            {"id": i, "n_ctx": 512, "speculative": False, "is_processing": False} for i in range(2)
        ]
        body = {"prompt": "Once upon", "n_predict": 9, "top_k": 5, "stream": True, "id_slot": 1}
        live = Live(app, "/completion", body)
        await live.until('"content"')
        free, busy = (await http.get("/slots")).json()
        assert free["is_processing"] is False
        assert busy["is_processing"] is True
        assert busy["params"]["top_k"] == 5
        (next_token,) = busy["next_token"]
        assert next_token["n_decoded"] + next_token["n_remain"] == 9
        assert busy["n_prompt_tokens"] == len(engine.seen[0].prompt) + next_token["n_decoded"]
        assert busy["n_prompt_tokens_processed"] == len(engine.seen[0].prompt)
        await live.finish()
        assert (await http.get("/slots")).json() == idle


async def test_slots_without_a_free_one_fail_on_request():
    app = make_app(with_slots(1, delay_s=0.01))
    async with client(app) as http:
        assert (await http.get("/slots?fail_on_no_slot=1")).status_code == 200
        live = Live(app, "/completion", {"prompt": "Once", "stream": True})
        await live.until('"content"')
        assert (await http.get("/slots")).status_code == 200
        error = error_of(await http.get("/slots?fail_on_no_slot=1"), 503)
        assert error["code"] == "no_slot"
        await live.finish()


async def test_a_client_that_disconnects_frees_its_slot():
    app = make_app(with_slots(1, delay_s=0.02))
    async with client(app) as http:
        live = Live(app, "/completion", {"prompt": "Once"})
        while not (await http.get("/slots")).json()[0]["is_processing"]:
            await asyncio.sleep(0.005)
        live._gone.set()
        await live.task
        assert (await http.get("/slots")).json()[0]["is_processing"] is False


async def test_unknown_slot_is_refused_by_number():
    async with client(with_slots(2)) as http:
        body = (await http.post("/completion", json={"prompt": "a", "id_slot": 2})).json()
    assert body["warnings"] == ["id_slot has no effect: there are 2 slots, numbered from 0"]
