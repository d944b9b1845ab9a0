"""Room for one model is made by unloading others. A simulated clock; no process, no file."""

from __future__ import annotations

import asyncio

import pytest

from server.registry.loader import Capacity, Changes
from server.worker.errors import LoadFailed
from support.fakes.registry import Models, settle

pytestmark = pytest.mark.asyncio


async def test_least_recently_used_model_is_unloaded_for_another():
    models = Models("abc", max_models=2)
    for name in "aba":
        models.now += 1
        await models.use(name)
    models.now += 1
    await models.use("c")
    assert models.states() == "a ready, b unloaded, c ready"


async def test_a_model_in_use_is_not_unloaded_for_another():
    models = Models("ab", max_models=1)
    lease = await models.registry.wait(models["a"])
    other = asyncio.create_task(models.registry.wait(models["b"]))
    await settle()
    assert models.states() == "a ready, b loading"
    assert "stop a" not in models.log
    models.registry.release(lease)
    models.registry.release(await other)
    assert models.log == ["load a", "loaded a", "stop a", "load b", "loaded b"]


async def test_cancelled_waiter_unloads_no_model():
    models = Models("ab", max_models=1)
    lease = await models.registry.wait(models["a"])
    other = asyncio.create_task(models.registry.wait(models["b"]))
    await settle()
    other.cancel()
    await asyncio.wait([other])
    await settle()
    models.registry.release(lease)
    await settle()
    assert models.states() == "a ready, b unloaded"
    await models.use("a")
    assert models.log == ["load a", "loaded a"]


async def test_begun_load_is_finished_without_its_request():
    models = Models("a")
    models.held.add("a")
    waiting = asyncio.create_task(models.registry.wait(models["a"]))
    await settle()
    waiting.cancel()
    models.made[0].gate.set()
    await settle()
    assert models.states() == "a ready"


async def test_models_that_wait_for_room_are_loaded_in_the_order_of_their_requests():
    models = Models("abc", max_models=1)
    lease = await models.registry.wait(models["a"])
    others = [asyncio.create_task(models.use(name)) for name in "cb"]
    await settle()
    models.registry.release(lease)
    await asyncio.gather(*others)
    assert [line for line in models.log if line.startswith("loaded")] == ["loaded a", "loaded c", "loaded b"]


async def test_model_that_is_never_idle_is_unloaded_eventually(monkeypatch):
    monkeypatch.setattr("server.registry.loader.PATIENCE_S", 0.05)
    models = Models("ab", max_models=1)
    first = await models.registry.wait(models["a"])
    other = asyncio.create_task(models.use("b"))
    await settle()
    second = await models.registry.wait(models["a"])  # there is always one
    models.now += 1
    models.registry.changes.notify()
    await settle()
    assert models.states() == "a draining, b loading"
    third = asyncio.create_task(models.use("a"))
    await settle()
    models.registry.release(first)
    await settle()
    assert "stop a" not in models.log
    models.registry.release(second)
    await asyncio.gather(other, third)
    assert models.log == [
        *("load a", "loaded a", "stop a"),
        *("load b", "loaded b", "stop b"),
        *("load a", "loaded a"),
    ]


async def test_model_whose_device_is_gone_makes_room_without_waiting_for_its_requests(monkeypatch):
    monkeypatch.setattr("server.registry.loader.PATIENCE_S", 0.05)
    monkeypatch.setattr("server.registry.loader.BLOCKED_CHECK_S", 0.01)
    models = Models("ab", max_models=1)
    await models.registry.wait(models["a"])  # never released
    other = asyncio.create_task(models.use("b"))
    await settle()
    models.now += 1
    models.registry.changes.notify()
    await settle()
    assert models.states() == "a draining, b loading"
    models.made[0].blocked = True
    await other
    assert models.log == ["load a", "loaded a", "stop a", "load b", "loaded b"]


async def test_memory_budget_unloads_only_as_many_models_as_needed():
    models = Models("abc", memory=250)
    await models.use("a")
    models.now += 1
    await models.use("b")
    models.now += 1
    await models.use("c")
    assert models.states() == "a unloaded, b ready, c ready"
    assert [engine.memory for engine in models.made] == [250, 150, 50, 150]


async def test_model_larger_than_the_budget_is_refused_after_unloading_the_others():
    models = Models("ab", memory=120)
    await models.use("a")
    models.registry._loader._capacity = Capacity(0, 90)
    with pytest.raises(LoadFailed, match="needs 100, has 90"):
        await models.use("b")
    assert models.states() == "a unloaded, b failed"


async def test_engine_is_replaced_without_a_gap():
    models = Models("a")
    removed = []
    models.registry.on_removed(removed.append)
    old = await models.registry.wait(models["a"])
    models.held.add("a")
    replacing = asyncio.create_task(models.registry.load(models["a"], again=True))
    await settle()
    between = models.registry.acquire(models["a"])
    assert between is not None  # the old one serves while the new one loads
    assert between.residency is old.residency
    assert len([*models.registry.all_engines()]) == 2
    models.made[1].gate.set()
    await replacing
    assert models.registry.acquire(models["a"]).residency.engine is models.made[1]
    assert removed == []
    models.registry.release(old)
    models.registry.release(between)
    await settle()
    assert removed == [old.residency.engine]
    assert models.log[-1] == "stop a"
    assert [*models.registry.all_engines()] == [models.made[1]]


async def test_failed_replacement_keeps_the_engine():
    models = Models("a")
    await models.use("a")
    models.errors["a"] = LoadFailed("ModelError", "truncated")
    with pytest.raises(LoadFailed, match="truncated"):
        await models.registry.load(models["a"], again=True)
    assert models.states() == "a ready"
    assert models.registry.acquire(models["a"]).residency.engine is models.made[0]


async def test_replacement_without_room_is_loaded_after_unloading_the_old_engine():
    models = Models("a", memory=150)
    await models.use("a")
    await models.registry.load(models["a"], again=True)
    assert models.states() == "a ready"
    assert models.log[2:] == ["load a", "stop a", "stop a", "load a", "loaded a"]


async def test_file_that_is_not_a_model_unloads_no_other():
    models = Models("ab", max_models=1)
    await models.use("a")
    models.damaged.add("b")
    with pytest.raises(LoadFailed, match="is not a GGUF file"):
        await models.use("b")
    assert models.states() == "a ready, b failed"


pytestmark = pytest.mark.asyncio


async def test_every_waiter_is_woken_once():
    changes = Changes()
    waiting = [asyncio.create_task(changes.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    changes.notify()
    await asyncio.gather(*waiting)
    later = asyncio.create_task(changes.wait())
    await asyncio.sleep(0)
    assert not later.done()
    changes.notify()
    await later


async def test_wait_ends_at_its_timeout():
    await Changes().wait(0.0)
