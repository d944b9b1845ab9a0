"""Which models are loaded, for whom, and until when. A simulated clock; no process, no file."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import ModelError
from server.registry.registry import RETRY_S, SCAN_S, ModelRegistry, Policy, check_file
from server.worker.errors import LoadFailed, QueueFull
from support.fakes.engine import STORIES
from support.fakes.registry import Models, settle

pytestmark = pytest.mark.asyncio


async def test_requests_for_a_model_load_it_once_and_share_its_engine():
    models = Models("ab")
    models.held.add("a")
    waiting = [asyncio.create_task(models.registry.wait(models["a"])) for _ in range(5)]
    await settle()
    assert models.states() == "a loading, b unloaded"
    models.made[0].gate.set()
    leases = await asyncio.gather(*waiting)
    assert {lease.residency.engine for lease in leases} == {models.made[0]}
    assert models.log == ["load a", "loaded a"]
    assert models["a"].residency.n_users == 5
    for lease in leases:
        models.registry.release(lease)
    assert models["a"].is_idle


async def test_waiting_requests_over_the_limit_are_refused():
    models = Models("a", max_waiting=2)
    models.held.add("a")
    waiting = [asyncio.create_task(models.registry.wait(models["a"])) for _ in range(2)]
    await settle()
    with pytest.raises(QueueFull):
        await models.registry.wait(models["a"])
    models.made[0].gate.set()
    await asyncio.gather(*waiting)


async def test_request_arriving_as_the_last_one_ends_is_served():
    models = Models("ab")
    models.held.add("b")
    other = asyncio.create_task(models.registry.wait(models["b"]))
    await settle()
    load = models.registry.begin(models["a"])  # waits for its turn
    await settle()
    load.cancel()
    again = models.registry.begin(models["a"])
    models.made[0].gate.set()
    await asyncio.gather(models.registry.finished(again), other)
    assert load.cancelled()
    assert models.states() == "a ready, b ready"
    assert models["a"].load is None


async def test_failed_load_is_retried_by_a_request_only_after_a_pause():
    models = Models("ab")
    models.errors["a"] = LoadFailed("ModelError", "/secret/a.gguf: bad magic")
    with pytest.raises(LoadFailed, match="bad magic"):
        await models.use("a")
    assert models.states() == "a failed, b unloaded"
    await models.use("b")  # goes on
    assert not models.registry.may_load(models["a"])
    models.now += RETRY_S
    assert models.registry.may_load(models["a"])
    del models.errors["a"]
    await models.use("a")
    assert models.states() == "a ready, b ready"


async def test_explicit_load_without_autoload_loads_once():
    models = Models("a", autoload=False)
    assert not models.registry.may_load(models["a"])
    await models.registry.load(models["a"])
    assert models.states() == "a ready"
    await models.registry.load(models["a"])  # is loaded
    assert models.log == ["load a", "loaded a"]


async def test_idle_model_is_unloaded_after_its_keep_alive():
    models = Models("ab", idle_s=60.0)
    await models.use("a")
    lease = await models.registry.wait(models["b"])
    models.now += 59
    models.registry.tick()
    await settle()
    assert models.states() == "a ready, b ready"
    assert models.registry.seconds_left(models["a"]) == 1
    assert models.registry.seconds_left(models["b"]) == 60  # is in use
    models.now += 1
    models.registry.tick()
    await settle()
    assert models.states() == "a unloaded, b ready"
    assert models.registry.seconds_left(models["a"]) is None
    models.registry.release(lease)
    models["b"].keep_alive_s = None
    models.now += 10_000
    models.registry.tick()
    await settle()
    assert models.states() == "a unloaded, b ready"


async def test_reloaded_policy_keeps_the_keep_alive_set_by_a_request():
    models = Models("ab", idle_s=50.0)
    models["b"].keep_alive_s = 3.0
    models.registry.reload(replace(models.registry.policy, idle_s=None, autoload=False))
    assert (models["a"].keep_alive_s, models["b"].keep_alive_s) == (None, 3.0)
    assert models["b"].default_keep_alive_s is None
    assert not models.registry.may_load(models["a"])


async def test_uncounted_uses_do_not_keep_a_model_loaded():
    models = Models("a", idle_s=60.0)
    await models.use("a")
    models.now += 59
    lease = models.registry.acquire(models["a"], counts=False)
    assert lease is not None
    models.registry.release(lease)
    models.now += 1
    models.registry.tick()
    await settle()
    assert models.states() == "a unloaded"


async def test_unload_waits_for_requests_and_later_ones_load_again():
    models = Models("a")
    lease = await models.registry.wait(models["a"])
    copy = models.registry.again(lease)
    unloading = asyncio.create_task(models.registry.unload(models["a"]))
    await settle()
    assert models.states() == "a draining"
    assert models.registry.acquire(models["a"]) is None
    late = asyncio.create_task(models.registry.wait(models["a"]))
    models.registry.release(lease)
    await settle()
    assert not unloading.done()
    models.registry.release(copy)
    await unloading
    assert (await late).residency.engine is models.made[1]


async def test_model_whose_unload_is_given_up_is_not_loaded_again():
    models = Models("a")
    lease = await models.registry.wait(models["a"])
    unloading = asyncio.create_task(models.registry.unload(models["a"]))
    await settle()
    late = asyncio.create_task(models.registry.wait(models["a"]))
    await settle()
    unloading.cancel()
    assert (await late).residency is lease.residency
    assert models.states() == "a ready"
    assert models.log == ["load a", "loaded a"]


async def test_unload_ends_a_running_load():
    models = Models("a")
    models.held.add("a")
    waiting = asyncio.create_task(models.registry.wait(models["a"]))
    await settle()
    await models.registry.unload(models["a"])
    with pytest.raises(LoadFailed, match="was unloaded while it was loading"):
        await waiting
    assert models.states() == "a unloaded"
    assert models.log == ["load a", "stop a"]


async def test_first_models_are_loaded_in_turn_and_one_may_fail():
    models = Models("c", "ab")
    models.errors["a"] = LoadFailed("ModelError", "bad")
    await models.registry.start()
    assert models.states() == "a failed, b ready, c unloaded"
    assert [str(failure) for failure in await models.registry.wait_started()] == ["bad"]
    assert not models.registry.may_load(models["a"])  # stays as it is until it is loaded by name
    del models.errors["a"]
    await models.registry.load(models["a"])
    assert models.states() == "a ready, b ready, c unloaded"
    await models.registry.stop()


async def test_first_models_are_loaded_up_to_max_models():
    models = Models("", "abc", max_models=2)
    await models.registry.start()
    assert models.states() == "a ready, b ready, c unloaded"
    await models.registry.stop()
    assert [engine.state for engine in models.made] == ["stopped", "stopped"]


async def test_first_models_without_room_do_not_unload_each_other():
    models = Models("", "ab", memory=150)
    await models.registry.start()
    assert models.states() == "a ready, b failed"
    await models.registry.stop()


async def test_request_does_not_load_a_held_first_model():
    models = Models("", "a")
    models.held.add("a")
    assert not models.registry.may_load(models["a"])


async def test_engine_with_a_replaced_file_is_loaded_again():
    models = Models("", "a")
    await models.registry.start()
    models.made[0].state, models.made[0].replaced = "failed", True
    assert models.registry.may_load(models["a"])
    models.registry.tick()
    await settle()
    assert models.states() == "a ready"
    assert models.registry.engines["a"] is models.made[1]
    await models.registry.stop()


async def test_stopping_ends_loads_and_engines():
    models = Models("ab")
    models.held.add("b")
    await models.use("a")
    waiting = asyncio.create_task(models.registry.wait(models["b"]))
    await settle()
    models.registry.kill()
    assert all(engine.killed for engine in models.made)
    await models.registry.stop()
    with pytest.raises(LoadFailed):
        await waiting
    assert [engine.state for engine in models.made] == ["stopped", "stopped"]


async def test_models_folder_is_scanned_again(tmp_path: Path):
    now = 100.0
    registry = ModelRegistry({}, None, Policy(folder=tmp_path), clock=lambda: now)
    assert await registry.refresh() is False
    (tmp_path / "new.gguf").touch()
    assert await registry.refresh() is False  # too soon
    now += SCAN_S
    assert await registry.refresh() is True
    assert [*registry.models] == ["new"]
    (tmp_path / "new.gguf").rename(tmp_path / "other.gguf")
    now += SCAN_S
    assert await registry.refresh() is True
    assert [*registry.models] == ["other"]
    (tmp_path / "other.gguf").unlink()
    tmp_path.rmdir()
    now += SCAN_S
    assert await registry.refresh() is False  # what was known stays
    assert [*registry.models] == ["other"]


async def test_model_without_its_file_serves_until_it_is_idle():
    models = Models("a")
    lease = await models.registry.wait(models["a"])
    models["a"].is_absent = True
    models.registry.tick()
    await settle()
    assert models.states() == "a ready"
    models.registry.release(lease)
    models.registry.tick()
    await settle()
    models.registry.tick()
    assert models.states() == ""


async def test_a_file_is_checked_by_its_header(tmp_path: Path):
    check_file(STORIES)
    (tmp_path / "junk.gguf").write_bytes(b"junk")
    with pytest.raises(ModelError):
        check_file(tmp_path / "junk.gguf")
    with pytest.raises(ModelError):
        check_file(tmp_path / "absent.gguf")
