"""Which options change without a restart."""

from __future__ import annotations

from pathlib import Path

from server.config.live import LIVE, changes
from server.config.settings import Settings

DEPLOYMENT = Path(__file__).parents[3] / "docs" / "deployment.md"


def test_changes_take_effect_or_need_a_restart() -> None:
    before = Settings(model=["a.gguf"], max_queue=5, port=1)
    assert changes(before, before) == ({}, [])
    after = Settings(model=["a.gguf"], max_queue=6, port=2, drain_s=1, default=["top_k=3"])
    assert changes(before, after) == ({"default": ["top_k=3"], "drain_s": 1.0, "max_queue": 6}, ["port"])


def test_what_takes_effect_is_an_option_that_the_documents_name() -> None:
    assert set(Settings.model_fields) >= LIVE
    (paragraph,) = [p for p in DEPLOYMENT.read_text().split("\n\n") if p.startswith("SIGHUP")]
    assert {name for name in Settings.model_fields if f"`{name}`" in paragraph} == LIVE


def test_what_a_model_is_loaded_with_needs_a_restart() -> None:
    """Else an engine that is restarted after a crash would be another one."""
    values = {"batch_size": 7, "seed": 1, "default": ["top_k=3"], "spec_type": "ngram-simple", "max_queue": 1}
    assert values.keys() <= LIVE
    assert Settings(**values).model_parameters() == Settings().model_parameters()
