"""Which options change without a restart."""

from __future__ import annotations

from pathlib import Path

from server.config.live import LIVE, changes
from server.config.settings import Settings

DEPLOYMENT = Path(__file__).parents[3] / "docs" / "deployment.md"


def test_changes_are_split_into_live_and_needing_a_restart() -> None:
    before = Settings(model=["a.gguf"], max_queue=5, port=1)
    assert changes(before, before) == ({}, [])
    after = Settings(model=["a.gguf"], max_queue=6, port=2, drain_s=1, default=["top_k=3"])
    assert changes(before, after) == ({"default": ["top_k=3"], "drain_s": 1.0, "max_queue": 6}, ["port"])


def test_live_options_are_those_the_documentation_names() -> None:
    assert set(Settings.model_fields) >= LIVE
    (paragraph,) = [p for p in DEPLOYMENT.read_text().split("\n\n") if p.startswith("SIGHUP")]
    assert {name for name in Settings.model_fields if f"`{name}`" in paragraph} == LIVE


def test_options_a_model_is_loaded_with_need_a_restart() -> None:
    """Else an engine that is restarted after a crash would be another one."""
    values = {"batch_size": 7, "seed": 1, "default": ["top_k=3"], "spec_type": "ngram-simple", "max_queue": 1}
    assert values.keys() <= LIVE
    assert Settings(**values).model_parameters() == Settings().model_parameters()
