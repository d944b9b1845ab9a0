"""SIGHUP: what is read again, what takes effect, and what the log says of the rest."""

from __future__ import annotations

import asyncio
import logging

import pytest

from engine.errors import ConfigError
from server.app import create_app
from server.cli.reloading import Engines, Reloading, apply_options
from server.cli.serving import registry_of
from server.config import sources
from server.config.settings import Settings
from server.keys.api_key import digest_of
from server.keys.key_ring import KeyRing
from server.registry.served_model import ServedModel
from server.worker.errors import QueueFull
from support.api.http import COMPLETIONS, client, error_of
from support.fakes.engine import FakeEngine, make_app
from support.fakes.engine_client import make_client


@pytest.fixture(autouse=True)
def info(caplog, monkeypatch):
    monkeypatch.setattr(
        "server.logs.configure", lambda level, form: None
    )  # it would replace pytest's handler
    caplog.set_level(logging.INFO, "ggserve")


def reloading(file, app) -> Reloading:
    """Of the options in a YAML file."""
    state, options = app.state.ggserve, sources.load(file=file)
    engines = Engines(options)
    return Reloading(
        state.keys,
        options,
        lambda: sources.load(file=file),
        lambda values: apply_options(values, state, engines),
    )


@pytest.mark.parametrize("in_folder", [True, False])
def test_only_engines_that_no_request_loads_again_wait_for_memory(tmp_path, in_folder):
    model = ServedModel("a", tmp_path / "a.gguf", in_folder=in_folder)
    assert Engines(Settings())(model, None).waits_for_memory is not in_folder


def test_reload_with_broken_options_still_reads_the_keys(tmp_path, caplog):
    file = tmp_path / "keys"
    file.write_text("one\n")
    file.chmod(0o600)
    options = Settings(model=["a.gguf"], api_key_file=file)
    keys = KeyRing(options.api_key, options.api_key_file)

    def broken() -> Settings:
        raise ConfigError("ggserve.yml, line 3: not YAML")

    file.write_text("one\ntwo\n")
    Reloading(keys, options, broken, lambda values: pytest.fail("nothing may change"))()
    assert keys.find(digest_of("two")) is not None
    assert "line 3: not YAML; the options are unchanged" in caplog.text


def test_reload_names_options_that_need_a_restart_without_their_values(caplog):
    options = Settings(model=["a.gguf"])
    other = Settings(model=["b.gguf"], parallel=3, api_key=["secret"], seed=1)
    applied = []
    reload = Reloading(KeyRing(), options, lambda: other, applied.append)
    reload()
    reload()
    assert applied == [{"seed": 1}], "only once"
    assert caplog.text.count("these options have changed but need a restart: model, parallel, api_key") == 2
    assert "secret" not in caplog.text


@pytest.mark.asyncio
async def test_reloaded_limits_and_defaults_apply_to_the_next_request(tmp_path, caplog):
    file = tmp_path / "ggserve.yml"
    file.write_text("model: a.gguf\n")
    engine = FakeEngine(eos=False)
    app = make_app(engine)
    reload = reloading(file, app)
    async with client(app) as http:
        body = {"prompt": "Once upon a time", "max_tokens": 1}
        assert (await http.post(COMPLETIONS, json={**body, "n": 3})).status_code == 200
        file.write_text(
            "model: a.gguf\nmax_choices: 2\nmax_body_bytes: 2000\nmax_header_bytes: 1024\n"
            "default: [top_k=3]\nseed: 5\nbatch_size: 9\n"
        )
        reload()
        assert (
            "in effect: seed, default, batch_size, max_header_bytes, max_body_bytes, max_choices"
            in caplog.text
        )
        assert error_of(await http.post(COMPLETIONS, json={**body, "n": 3}), 400)["param"] == "n"
        error_of(await http.post(COMPLETIONS, json={**body, "prompt": "x" * 2000}), 413)
        error_of(await http.post(COMPLETIONS, json=body, headers={"x-long": "x" * 1024}), 431)
        assert (await http.post(COMPLETIONS, json=body)).status_code == 200
        request = engine.seen[-1]
        assert (request.params.top_k, request.params.seed, request.n_batch) == (3, 5, 9)

        for text in ("max_choices: many\n", "max_choices: [\n", "max_choise: 3\n"):
            caplog.clear()
            file.write_text(text)
            reload()
            assert [(record.levelname, "\n" in record.message) for record in caplog.records] == [
                ("ERROR", False)
            ]
            assert caplog.text.rstrip().endswith("; the options are unchanged")
        error_of(await http.post(COMPLETIONS, json={**body, "n": 3}), 400)
        file.write_text("model: a.gguf\n")
        reload()
        assert (await http.post(COMPLETIONS, json={**body, "n": 3})).status_code == 200


@pytest.mark.asyncio
async def test_reloaded_draft_options_apply_to_the_next_request(tmp_path):
    file = tmp_path / "ggserve.yml"
    file.write_text("model: a.gguf\ndraft_model: d.gguf\n")
    engine = FakeEngine(eos=False)
    app = make_app(engine, draft_model="d.gguf")
    reload = reloading(file, app)
    async with client(app) as http:
        for line, spec_type in (("", "draft-simple"), ("spec_type: ngram-simple\n", "ngram-simple")):
            file.write_text(f"model: a.gguf\ndraft_model: d.gguf\n{line}")
            reload()
            assert (await http.post(COMPLETIONS, json={"prompt": "Once"})).status_code == 200
            assert (engine.seen[-1].spec_type, engine.seen[-1].draft_max) == (spec_type, 16)


def test_reloaded_options_reach_engines_and_registry(tmp_path):
    async def main() -> None:
        settings = Settings(model=["a=a.gguf", "b=b.gguf"], models_max=1, max_queue=64)
        engines = Engines(settings)
        registry = registry_of(settings, engines)
        first = registry.engines["a"]
        app = create_app(settings, registry)
        values = {"max_queue": 0, "sleep_idle_seconds": 7.0, "no_models_autoload": True, "log_level": "debug"}
        first.ensure_room(1)
        apply_options(values, app.state.ggserve, engines)
        later = engines(registry.models["b"], None)
        for engine in (first, later):
            with pytest.raises(QueueFull):
                engine.ensure_room(engine.params.parallel + 1)
        assert (registry.policy.autoload, registry.policy.idle_s, registry.policy.max_waiting) == (
            False,
            7,
            8,
        )
        assert {model.keep_alive_s for model in registry.models.values()} == {7}
        await registry.stop()

    asyncio.run(main())


def test_reloaded_queue_reader_timeout_and_log_level_reach_the_engine():
    async def main() -> None:
        engine = make_client(max_queue=0)
        engine.reload(Settings(max_queue=1, send_timeout_s=3, log_level="debug"))
        engine.ensure_room(engine.params.parallel + 1)
        with pytest.raises(QueueFull):
            engine.ensure_room(engine.params.parallel + 2)
        assert engine._in_flight.send_timeout_s == 3
        assert engine._supervisor.load.log_level == "debug"  # of the process after this one

    asyncio.run(main())
