"""Calls whose name stands before the JSON of the arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from server.chat.text_reader import NotThis, Openers, Reader, Reading
from server.chat.tool_calls.family import Family, Offer, arguments_rules, lark, one_of, start_rules
from server.chat.tool_calls.grammar import Words
from server.chat.tool_calls.json_calls import CallReader

MAX_NAME = 256


@dataclass(frozen=True)
class NamedForm:
    """`section` `opener` name `middle` {…} `closer` `end`; section and end once, the rest for each call.

    optional: a mark behind the name, with anything behind it, that models may put in. between: calls.
    """

    opener: str
    middle: str
    closer: str = ""
    section: str = ""
    end: str = ""
    between: str = ""
    optional: str = ""


class NamedReader(CallReader):
    """Reads a call behind each opener."""

    def __init__(self, form: NamedForm, *args: Any) -> None:
        self.form = form
        self.openers = Openers([form.section, form.opener])
        super().__init__(*args)

    def read(self) -> Reading[None]:
        form = self.form
        while True:
            opener = yield from self.until(self.openers, self.say)
            yield from self.attempt(opener, self.section() if opener == form.section else self.call())
            if form.end:
                yield from self.word(form.end)

    def section(self) -> Reading[None]:
        if not (yield from self.word(self.form.opener)):
            raise NotThis
        yield from self.call()

    def call(self) -> Reading[None]:
        """Behind the opener."""
        yield from self.head()
        yield from self.json(self.argue)
        if self.form.closer:
            yield from self.word(self.form.closer.strip())

    def head(self) -> Reading[None]:
        name = ""
        while not name.endswith(self.form.middle):
            character = yield from self.next()
            if character == "{":  # without the mark between
                self.unread(character)
                break
            name += character
            if len(name) > MAX_NAME:
                raise NotThis
        name = name.removesuffix(self.form.middle)
        if self.form.optional:
            name = name.partition(self.form.optional)[0]
        self.announce(self.tool_name(name.strip()))

    def tool_name(self, name: str) -> str:
        return name


class NamedFamily(Family):
    """A family with a name before JSON."""

    form: NamedForm

    @property
    def marks(self) -> tuple[str, ...]:
        form = self.form
        words = (form.section, form.opener, form.middle, form.closer, form.end, form.optional)
        return tuple(word.strip() for word in words if word.strip())

    def reader(self, offer: Offer, new_id: Callable[[], str]) -> Reader:
        return NamedReader(self.form, offer.names, new_id, offer.limit)

    def grammar(self, offer: Offer, words: Words) -> str:
        form = self.form
        rules = [one_of("call", offer), *arguments_rules(offer)]
        for i, tool in enumerate(offer.tools):
            rules.append(f"call_{i}: {words(tool.name + form.middle)} arguments_{i} {words(form.closer)}")
        more = f"({words(form.between + form.opener)} call)*" if offer.parallel else ""
        first = words(form.opener) if form.section else ""
        rules.append(f"calls: {first} call {more} {words(form.end)}")
        return lark([*start_rules(offer, words, form.section or form.opener, "calls"), *rules])

    def example(self) -> str:
        form = self.form
        arguments = '{"argument name": "value"}'
        return f"{form.section}{form.opener}tool name{form.middle}{arguments}{form.closer}{form.end}"
