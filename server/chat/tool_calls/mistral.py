"""Mistral: `[TOOL_CALLS][{"name": …, "arguments": …, "id": …}]`, later `[TOOL_CALLS]name[ARGS]{…}`."""

from __future__ import annotations

from collections.abc import Callable

from server.chat.text_reader import Reader, Reading
from server.chat.tool_calls.family import Offer
from server.chat.tool_calls.json_calls import JsonFamily, JsonForm
from server.chat.tool_calls.named_calls import NamedFamily, NamedForm, NamedReader

_OPENER = "[TOOL_CALLS]"
_NAMED = NamedForm(_OPENER, "[ARGS]", optional="[CALL_ID]")


class MistralReader(NamedReader):
    """Both forms: fine-tuned models keep to neither."""

    def call(self) -> Reading[None]:
        character = yield from self.after_space()
        if character == "[":
            yield from self.call_list()
        else:
            self.unread(character)
            yield from super().call()


class MistralList(JsonFamily):
    """Up to version 7 of its tokenizers."""

    name = "mistral"
    short_ids = True
    form = JsonForm(_OPENER, "", listed=True, behind=r'", \"id\": \"" /[a-zA-Z0-9]{9}/ "\""')

    def detects(self, source: str) -> bool:
        return _OPENER in source and "[ARGS]" not in source

    def reader(self, offer: Offer, new_id: Callable[[], str]) -> Reader:
        return MistralReader(_NAMED, offer.names, new_id, offer.limit)


class MistralNamed(NamedFamily):
    """From version 11 on."""

    name = "mistral-named"
    short_ids = True
    form = _NAMED

    def detects(self, source: str) -> bool:
        return _OPENER in source and "[ARGS]" in source

    def reader(self, offer: Offer, new_id: Callable[[], str]) -> Reader:
        return MistralReader(_NAMED, offer.names, new_id, offer.limit)
