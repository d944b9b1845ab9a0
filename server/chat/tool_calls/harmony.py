"""GPT-OSS: messages on channels. Those of `analysis` are reasoning, those to a function are calls."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from server.chat.text_reader import SPACE, End, Openers, Reader, Reading
from server.chat.tool_calls.family import ANY_TEXT, Family, Offer, arguments_rules, lark, one_of, text_until
from server.chat.tool_calls.grammar import Words, answer_rule

_CHANNEL, _MESSAGE, _START = "<|channel|>", "<|message|>", "<|start|>"
_ENDS = ("<|end|>", "<|call|>", "<|return|>")
_TO = re.compile(r"to=functions\.([A-Za-z0-9_.-]+)")
_NAMED_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)")


class HarmonyReader(Reader):
    """before: what the prompt has of the answer already, behind `<|start|>assistant`."""

    def __init__(self, before: str, raw: bool, *args: Any) -> None:
        self.raw = raw
        self._trailing = ""
        self._header_end = Openers([_MESSAGE])
        self._body_end = Openers([*_ENDS, _START])
        super().__init__(*args)
        if before:
            self.push(before)
            self._trailing = self._space = ""

    def think(self, text: str) -> None:
        text = self._trailing + text
        kept = text.rstrip(SPACE)
        self._trailing = text[len(kept) :]
        self._reasoning.append(kept)

    def read(self) -> Reading[None]:
        while True:
            header: list[str] = []
            try:
                yield from self.until(self._header_end, header.append)
            except End:
                if not self.n_calls and not any(mark in "".join(header) for mark in (_CHANNEL, _START)):
                    self.say("".join(header))  # an answer that keeps to no format
                raise
            yield from self.message("".join(header))

    def message(self, header: str) -> Reading[None]:
        """What stands behind a header, and its end."""
        called, channel = _TO.search(header), _NAMED_CHANNEL.search(header)
        if called is not None:
            yield from self.attempt(header + _MESSAGE, self.call(called[1]))
        elif channel is not None and channel[1] == "analysis":
            yield from self.analysis(header)
        else:
            yield from self.until(self._body_end, self.say)

    def analysis(self, header: str) -> Reading[None]:
        self.reasoning = True
        say = self.say if self.raw else self.think
        if self.raw:
            say(header + _MESSAGE)
        end = yield from self.until(self._body_end, say)
        if self.raw:
            say(end)
        self._trailing = ""
        self.reasoning = False

    def call(self, name: str) -> Reading[None]:
        self.announce(name)
        character = yield from self.after_space()
        self.unread(character)
        if character == "<":  # no arguments at all
            self.argue("{}")
        else:
            yield from self.json(self.argue)
        yield from self.until(self._body_end, lambda _: None)


class Harmony(Family):
    name = "harmony"
    reasons = True
    marks = (_CHANNEL, _MESSAGE, _START, "<|constrain|>", *_ENDS)

    def detects(self, source: str) -> bool:
        return _CHANNEL in source and _MESSAGE in source

    def reader(self, offer: Offer, new_id: Callable[[], str]) -> Reader:
        return HarmonyReader("", False, offer.names, new_id, offer.limit)

    def whole_reader(
        self, offer: Offer | None, new_id: Callable[[], str], prompt: str, raw: bool
    ) -> Reader | None:
        before = prompt.rpartition(_START + "assistant")[2]
        names, limit = (frozenset[str](), None) if offer is None else (offer.names, offer.limit)
        return HarmonyReader(before, raw, names, new_id, limit)

    def grammar(self, offer: Offer, words: Words) -> str | None:
        """Analysis if there is some, then a call or the answer. Free where the answer is any text."""
        if not offer.required and offer.answer is None:
            return None
        rules = [one_of("call", offer), *arguments_rules(offer)]
        for i, tool in enumerate(offer.tools):
            head = f"{_CHANNEL}commentary to=functions.{tool.name} <|constrain|>json{_MESSAGE}"
            rules.append(f"call_{i}: {words(head)} arguments_{i}")
        if offer.answer is None or offer.required:
            return self._whole("call", rules, words)
        final = self._final(answer_rule(offer.answer), words)
        return self._whole("call | final", [*rules, *final], words)

    def answer_grammar(self, answer: str, words: Words) -> str | None:
        return self._whole("final", self._final(answer, words), words)

    def _final(self, answer: str, words: Words) -> list[str]:
        return [f"final: {words(f'{_CHANNEL}final{_MESSAGE}')} answer", f"answer: {answer}"]

    def _whole(self, last: str, rules: list[str], words: Words) -> str:
        again = words(f"{_START}assistant")  # behind analysis, which the grammar need not have seen
        return lark(
            [
                f"start: (analysis | again)? ({last})",
                f"analysis: {words(f'{_CHANNEL}analysis{_MESSAGE}')} analysed {again}",
                *text_until("analysed", "<|end|>", words),
                f"again: {again}",
                f"TEXT: {ANY_TEXT}",
                *rules,
            ]
        )

    def fit(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """With a call the template takes one text: its reasoning, or else its content."""
        return [
            {**message, "content": ""} if message.get("tool_calls") and message.get("thinking") else message
            for message in messages
        ]

    def example(self) -> str:
        head = f"{_CHANNEL}commentary to=functions.tool_name <|constrain|>json{_MESSAGE}"
        return head + '{"argument name": "value"}'
