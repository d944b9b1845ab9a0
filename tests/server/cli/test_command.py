"""What the commands share: the parser, sizes, and the settings of one model."""

from __future__ import annotations

import pytest

from engine.errors import ConfigError
from server.cli.command import with_files
from server.config.settings import Settings


def test_names_that_do_not_fit_the_options_are_refused() -> None:
    settings = Settings(model=["stories"], alias=["stories=any"])
    assert with_files(settings).aliases() == {"any": "stories"}
    with pytest.raises((ConfigError, ValueError), match="alias: no model is called"):
        with_files(Settings(model=["stories"]).model_copy(update={"alias": ["other=any"]}))
