"""GET and POST /lora-adapters, and the field `lora`: which adapters the engine's requests carry."""

from __future__ import annotations

from copy import copy
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.tasks.types import Embed, EraseSlot, GetPromptLogprobs, SaveSlot
from support.api.http import COMPLETIONS, client, error_of
from support.fakes.engine import FakeEngine, make_app, tokenizer

ADAPTERS = [
    {"id": 0, "path": "/secret/a.gguf", "scale": 1.0, "task_name": "sort", "prompt_prefix": "Sort:"},
    {"id": 1, "path": "/secret/b.gguf", "scale": 0.0, "task_name": "", "prompt_prefix": ""},
]
ROUTES: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": "a", "max_tokens": 2},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "a"}], "max_tokens": 2},
    "/v1/responses": {"input": "a", "max_output_tokens": 16},
    "/v1/messages": {"model": "stories", "messages": [{"role": "user", "content": "a"}], "max_tokens": 2},
    "/completion": {"prompt": "a", "n_predict": 2},
    "/infill": {"input_prefix": "a", "input_suffix": "b", "n_predict": 2},
}


def engine_with_adapters() -> FakeEngine:
    engine = FakeEngine()
    assert engine.info is not None
    engine.info["lora"] = ADAPTERS
    engine.tokenizer = copy(tokenizer())
    engine.tokenizer.fim_pre_id, engine.tokenizer.fim_suf_id, engine.tokenizer.fim_mid_id = 500, 501, 502
    return engine


def http_of(engine: FakeEngine, **settings: Any) -> httpx.AsyncClient:
    http: httpx.AsyncClient = client(make_app(engine, **settings))
    return http


@pytest.mark.asyncio
async def test_adapters_are_listed_and_their_scales_apply_to_later_requests() -> None:
    engine = engine_with_adapters()
    async with http_of(engine) as http:
        body = {"prompt": "a", "max_tokens": 1}
        assert (await http.get("/lora-adapters")).json() == [
            {"id": 0, "path": "a.gguf", "scale": 1.0, "task_name": "sort", "prompt_prefix": "Sort:"},
            {"id": 1, "path": "b.gguf", "scale": 0.0, "task_name": "", "prompt_prefix": ""},
        ]
        await http.post(COMPLETIONS, json=body)
        answer = await http.post("/lora-adapters", json=[{"id": 1, "scale": 0.25}])
        assert (answer.status_code, answer.json()) == (200, {"success": True})
        assert [each["scale"] for each in (await http.get("/lora-adapters")).json()] == [0.0, 0.25]
        await http.post(COMPLETIONS, json=body)
        await http.post("/lora-adapters", json=[])
        await http.post(COMPLETIONS, json=body)
    assert [request.lora for request in engine.seen] == [((0, 1.0),), ((1, 0.25),), ()]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.asyncio
async def test_every_generation_route_takes_adapters(route: str) -> None:
    engine = engine_with_adapters()
    lora = [{"id": 1, "scale": -0.5}, {"id": 0, "scale": 0}]
    async with http_of(engine) as http:
        answer = await http.post(route, json={**ROUTES[route], "lora": lora})
        assert answer.status_code == 200, answer.text
        refused = await http.post(route, json={**ROUTES[route], "lora": [{"id": 2, "scale": 1}]})
        assert refused.status_code == 400
    assert "lora: there is no LoRA adapter 2; the model has 2, numbered from 0" in refused.text
    assert [request.lora for request in engine.seen] == [((1, -0.5),)]


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ([{"id": 0, "scale": 1}, {"id": 0, "scale": 2}], "lora: LoRA adapter 0 is named twice"),
        ([{"id": 0, "scale": 2000}], "lora"),
        ([{"id": -1, "scale": 1}], "lora"),
        ([{"id": 0}], "lora"),
        ([{"id": "0", "scale": 1}], "lora"),
        ({"id": 0, "scale": 1}, "lora"),
        ([{"id": 0, "scale": 1}] * 65, "lora"),
    ],
)
@pytest.mark.asyncio
async def test_invalid_adapter_selections_are_refused(lora: Any, message: str) -> None:
    engine = engine_with_adapters()
    async with http_of(engine) as http:
        error = error_of(await http.post(COMPLETIONS, json={"prompt": "a", "lora": lora}), 400)
        assert message in error["message"]
        answer = await http.post("/lora-adapters", json=lora)
        assert answer.status_code == 400
    assert engine.seen == []


@pytest.mark.asyncio
async def test_model_without_adapters_lists_none_and_refuses_any() -> None:
    engine = engine_with_adapters()
    engine.info = {**(engine.info or {}), "lora": []}
    async with http_of(engine) as http:
        assert (await http.get("/lora-adapters")).json() == []
        assert (await http.post("/lora-adapters", json=[])).status_code == 200
        error = error_of(await http.post("/lora-adapters", json=[{"id": 0, "scale": 1}]), 400)
        assert "the model has none" in error["message"]


@pytest.mark.asyncio
async def test_other_work_uses_the_adapters_of_the_server_or_of_its_request(tmp_path: Path) -> None:
    engine = engine_with_adapters()
    lora = ((1, 0.5),)
    async with http_of(engine, slot_save_path=tmp_path) as http:
        await http.post("/v1/embeddings", json={"input": "a"})
        body = {"prompt": "a b c", "max_tokens": 1, "echo": True, "logprobs": 0}
        await http.post(COMPLETIONS, json={**body, "lora": [{"id": 1, "scale": 0.5}]})
        slot = engine.seen[0].slot
        await http.post(f"/slots/{slot}?action=save", json={"filename": "x"})
        await http.post(f"/slots/{slot}?action=erase")
    embed, score, save, erase = engine.works
    assert isinstance(embed, Embed)
    assert embed.lora == ((0, 1.0),)
    for task in (score, save, erase):
        assert isinstance(task, GetPromptLogprobs | SaveSlot | EraseSlot)
        assert task.lora == lora


@pytest.mark.asyncio
async def test_the_native_reply_and_slots_name_the_adapters_in_use() -> None:
    async with http_of(engine_with_adapters()) as http:
        answer = await http.post("/completion", json={"prompt": "a", "n_predict": 1})
        assert answer.json()["generation_settings"]["lora"] == [{"id": 0, "scale": 1.0}]
