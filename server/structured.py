"""What the text of an answer must match: from the fields that ask for it to a checked constraint."""

from __future__ import annotations

from typing import NamedTuple

from engine.types import Constraint
from server.deps import Engine, State
from server.errors import bad_request


class Asked(NamedTuple):
    """A constraint, and the field that asks for it."""

    constraint: Constraint
    param: str


async def checked(asked: Asked | None, engine: Engine, state: State) -> Constraint | None:
    """The constraint, known to compile for the model; anything else is a 400 that names the field."""
    if asked is None:
        return None
    raise bad_request(f"{asked.param}: is not supported by this server", asked.param, "unsupported_value")
