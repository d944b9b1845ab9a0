"""What is written around values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.constraint.json_schema.writing.scalars import regex, terminal_matches

_SPACE = r"[ \t\r\n]*"


@dataclass(frozen=True)
class Spacing:
    """Regular expressions of what is written around values."""

    comma: str = r",( |\n[ \t]{0,20})?"
    colon: str = ": ?"
    opened: str = r"( |\n[ \t]{0,20})?"  # behind a bracket
    closing: str = r"( |\n[ \t]{0,20})?"  # before one

    @classmethod
    def of(cls, options: dict[str, Any]) -> Spacing:
        """What llguidance's options mean."""
        item, key = options.get("item_separator"), options.get("key_separator")
        pattern = options.get("whitespace_pattern")
        if pattern is None and options.get("whitespace_flexible") is True:
            pattern = r"[\x20\x0A\x0D\x09]+"
        if pattern is not None:
            space = f"(?:{pattern})?"
            return cls(f"{space}(?:{item or ','}){space}", f"{space}(?:{key or ':'}){space}", space, space)
        if options.get("whitespace_flexible") is False:
            return cls(item or ",", key or ":", "", "")
        return cls(item or cls.comma, key or cls.colon)

    @property
    def is_json(self) -> bool:
        """Whether nothing else is written than JSON has around values."""
        pairs = (self.comma, ","), (self.colon, ":"), (self.opened, ""), (self.closing, "")
        others = (f"{regex(own)} & ~/{_SPACE}{mark}{_SPACE}/" for own, mark in pairs)
        return not any(terminal_matches(f'({other}) "."') for other in others)  # the empty text counts
