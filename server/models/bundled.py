"""The bundled model: in models/ of a checkout, or where setup.py copies it on installation."""

from __future__ import annotations

from pathlib import Path

NAME = "stories.gguf"


def bundled_model() -> Path:
    """Path of the model that needs no network. Raises FileNotFoundError if the installation is incomplete."""
    here = Path(__file__).resolve().parents[1]
    places = (here / "models" / NAME, here.parent / "models" / NAME)
    for path in places:
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"the bundled model is missing ({places[0]}); reinstall ggserve or choose a model with --model"
    )
