"""The options in force, as a file."""

from __future__ import annotations

from server.config.settings import Settings
from server.config.sources import render
from support.server_process import ggserve


def test_config_prints_the_options_in_effect(tmp_path, monkeypatch):
    monkeypatch.setenv("GGSERVE_PARALLEL", "3")
    file = tmp_path / "c.yml"
    file.write_text("threads: 2\nport: 7")
    done = ggserve("config", "--config", str(file), "--port", "9", "--api-key", "hidden")
    expected = render(Settings(parallel=3, threads=2, port=9, api_key=["hidden"]))
    assert done.stdout == expected
    assert "hidden" not in done.stdout
