"""Calls as JSON objects that name the tool: most families differ only in what is around them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from server.chat.text_reader import SPACE, NotThis, Openers, Reader, Reading
from server.chat.tool_calls.family import Family, Offer, arguments_rules, lark, one_of, start_rules
from server.chat.tool_calls.grammar import Words, quoted

NAME_KEYS = ("name", "tool_name", "function")
ARGUMENT_KEYS = ("arguments", "parameters")


@dataclass(frozen=True)
class JsonForm:
    """opener, closer: around a call, or around the list of all calls if `listed`. gap: between them and JSON.

    before, behind: in the object around name and arguments, as grammar. between: two calls. silent: marks
    that are no content. start, comma, end: of the list.
    """

    opener: str
    closer: str
    gap: str = ""
    listed: bool = False
    name_key: str = "name"
    arguments_key: str = "arguments"
    before: str = ""
    behind: str = ""
    between: str = "\n"
    silent: tuple[str, ...] = ()
    start: str = "["
    comma: str = ", "
    end: str = "]"


class CallReader(Reader):
    """Reads calls that are JSON objects."""

    def call_list(self) -> Reading[None]:
        """Behind the `[`."""
        while True:
            character = yield from self.after_space()
            if character == "{":
                yield from self.json_call()
            elif character == "]":
                return
            elif character != ",":
                raise NotThis

    def call_sequence(self) -> Reading[None]:
        """Behind the first `{`: objects one after the other."""
        yield from self.json_call()
        while True:
            character = yield from self.next()
            if character == "{":
                yield from self.json_call()
            elif character not in SPACE + ",;":
                self.unread(character)
                return

    def json_call(self) -> Reading[None]:
        """Behind the `{`. Arguments before the name are told only when the name is known."""
        named, argued, early = False, False, list[str]()
        while True:
            key = yield from self.key()
            if key is None:
                break
            if key in NAME_KEYS and not named:
                character = yield from self.after_space()
                if character == "{":  # {"function": {"name": …, "arguments": …}}
                    yield from self.json_call()
                    named = argued = True
                    continue
                self.unread(character)
                name = yield from self.value()
                self.announce(name if isinstance(name, str) else "")
                named = True
                if early:
                    self.argue("".join(early))
            elif key in ARGUMENT_KEYS and not argued:
                yield from self.arguments(self.argue if named else early.append)
                argued = True
            else:
                yield from self.json(lambda _: None)
        if not named:
            raise NotThis
        if not argued:
            self.argue("{}")

    def key(self) -> Reading[str | None]:
        """The next key of an object with its colon, or None at the end."""
        character = yield from self.after_space()
        if character == ",":
            character = yield from self.after_space()
        if character == "}":
            return None
        self.unread(character)
        if character != '"':
            raise NotThis
        key = yield from self.value()
        if (yield from self.after_space()) != ":":
            raise NotThis
        return str(key)

    def arguments(self, say: Callable[[str], None]) -> Reading[None]:
        """An object; some models write it as a string that holds one, some write null."""
        character = yield from self.after_space()
        self.unread(character)
        if character == '"':
            say(str((yield from self.value())))
        elif character == "n":
            yield from self.value()
            say("{}")
        else:
            yield from self.json(say)


class JsonReader(CallReader):
    """Reads a call, or a list of them, behind each opener."""

    def __init__(self, form: JsonForm, *args: Any) -> None:
        self.form = form
        self.openers = Openers([form.opener, *form.silent])
        super().__init__(*args)

    def read(self) -> Reading[None]:
        while True:
            opener = yield from self.until(self.openers, self.say)
            if opener == self.form.opener:
                yield from self.attempt(opener, self.calls())

    def calls(self) -> Reading[None]:
        yield from self.word("```json")
        character = yield from self.after_space()
        if character == "[":
            yield from self.call_list()
        elif character == "{":
            yield from self.call_sequence()
        else:
            raise NotThis
        if self.form.closer:
            yield from self.word(self.form.closer)


class JsonFamily(Family):
    """A family whose calls are JSON between marks."""

    form: JsonForm

    @property
    def marks(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.form.opener, self.form.closer, *self.form.silent)))

    def reader(self, offer: Offer, new_id: Callable[[], str]) -> Reader:
        return JsonReader(self.form, offer.names, new_id, offer.limit)

    def grammar(self, offer: Offer, words: Words) -> str:
        form = self.form
        rules = [one_of("call", offer), *call_rules(form, offer), *arguments_rules(offer)]
        if form.listed:
            more = f"({quoted(form.comma)} call)*" if offer.parallel else ""
            start, end = words(form.gap + form.start), words(form.end + form.gap + form.closer)
            rules.append(f"calls: {start} call {more} {end}")
        else:
            end = words(form.gap + form.closer)
            again = f"{words(form.between + form.opener + form.gap)} call {end}"
            more = f"({again})*" if offer.parallel else ""
            rules.append(f"calls: {words(form.gap)} call {end} {more}")
        return lark([*start_rules(offer, words, form.opener, "calls"), *rules])

    def example(self) -> str:
        form = self.form
        call = f'{{"{form.name_key}": "tool name", "{form.arguments_key}": {{"argument name": "value"}}}}'
        return form.opener + form.gap + (f"[{call}]" if form.listed else call) + form.gap + form.closer


def call_rules(form: JsonForm, offer: Offer) -> list[str]:
    rules = []
    for i, tool in enumerate(offer.tools):
        head = f'"{form.name_key}": "{tool.name}", "{form.arguments_key}": '
        # One literal where it can be: text that is any but this is told from it as a whole.
        start = f"{quoted('{')} {form.before} {quoted(head)}" if form.before else quoted("{" + head)
        rules.append(f"call_{i}: {start} arguments_{i} {form.behind} {quoted('}')}")
    return rules
