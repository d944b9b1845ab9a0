"""Where the bundled model is: in models/ of a checkout, or where setup.py copies it for an installation."""

from __future__ import annotations

from pathlib import Path

NAME = "stories.gguf"


def bundled_model() -> Path:
    """The model that is served when none is named."""
    here = Path(__file__).resolve().parents[1]
    places = (here / "models" / NAME, here.parent / "models" / NAME)
    for path in places:
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"the bundled model is missing ({places[0]}); reinstall ggserve or name one with --model"
    )
