"""Calls without a mark before them: an answer is a call if it begins like one."""

from __future__ import annotations

from server.chat.stream import SPACE, End, Reading
from server.chat.tools.family import ANY_TEXT, Offer
from server.chat.tools.json_calls import CallReader


class BareReader(CallReader):
    """Reads what an answer begins with; subclasses read the rest in `rest`."""

    def read(self) -> Reading[None]:
        space = ""
        try:
            while True:
                character = yield from self.next()
                if character not in SPACE:
                    break
                space += character
        except End:
            self.say(space)
            raise
        self.unread(character)
        if character in "{`":
            yield from self.attempt(space, self.whole())
        else:
            self.say(space)
        yield from self.rest()

    def whole(self) -> Reading[None]:
        """The calls, from the first character on."""
        raise NotImplementedError

    def rest(self) -> Reading[None]:
        while True:
            self.say((yield from self.next()))


def start_rules(offer: Offer, first_key: str) -> list[str]:
    """Of a grammar whose rule `calls` is a whole answer that begins with this key."""
    if offer.required:
        return ["start: calls"]
    if offer.answer is not None:
        return ["start: answer | calls", f"answer: {offer.answer}"]
    return ["start: TEXT | calls", rf'TEXT: {ANY_TEXT} & ~/\{{"{first_key}": (?s:.*)/']
