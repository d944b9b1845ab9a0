"""Puts conversations into an order that a template accepts.

Many templates raise an error for a system message in the middle, two turns of one role in a row, an answer
without a question, or a tool result without its call. What the template accepts stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from server.chat.accepted_forms import SYSTEM_ROLES
from server.chat.messages import (
    MAX_WARNINGS,
    InvalidMessage,
    Message,
    calls_as_text,
    is_empty,
    text_of,
)

_MAX_RUN = 4  # system messages in a row that a probe distinguishes
# What surrounds a system message in the probe, by the kinds of its neighbours.
_BEFORE = {
    "user": ("user",),
    "assistant": ("user", "assistant"),
    "calls": ("user", "calls"),
    "tool": ("user", "calls", "tool"),
}
_AFTER = {
    None: (),
    "user": ("user",),
    "assistant": ("assistant", "user"),
    "calls": ("calls", "tool", "assistant", "user"),
    "tool": ("tool", "assistant", "user"),
}

Accepts = Callable[[tuple[str, ...]], bool]


@dataclass
class _Turn:
    message: Message
    index: int  # of the client's message

    @property
    def kind(self) -> str:
        """The role, or "calls" for an assistant message that calls tools."""
        return "calls" if self.message.get("tool_calls") else str(self.message["role"])

    @property
    def is_system(self) -> bool:
        return self.message["role"] in SYSTEM_ROLES

    @property
    def text(self) -> str:
        return text_of(self.message.get("content"))

    @property
    def is_empty(self) -> bool:
        return is_empty(self.message)


@dataclass(frozen=True)
class OrderedMessages:
    """indices: for each message, the index of the client's message that it comes from (the first one, if
    several were merged).
    """

    messages: list[Message]
    indices: Sequence[int]
    warnings: list[str]


def order_messages(messages: Sequence[Message], accepts: Accepts, continues: bool) -> OrderedMessages:
    """The messages, changed only where the template does not accept them. Raises InvalidMessage.

    Not for an order that is regular. continues: the answer continues the last message, which therefore stays
    last.
    """
    turns = [_Turn(message, i) for i, message in enumerate(messages)]
    order = _Order(turns, accepts, continues)
    order.drop_empty()
    order.pair_results()
    order.merge_leading_systems()
    order.place_later_systems()
    order.answer_systems()
    order.alternate()
    return OrderedMessages(
        [turn.message for turn in order.turns],
        [turn.index for turn in order.turns],
        _limited(text for _, text in sorted(order.changes, key=lambda change: change[0])),
    )


class _Order:
    """turns: the current turns. changes: what was done, as (index of the client's message, sentence)."""

    def __init__(self, turns: list[_Turn], accepts: Accepts, continues: bool) -> None:
        self.turns, self.changes = turns, list[tuple[int, str]]()
        self._accepts, self._continues = accepts, continues

    def drop_empty(self) -> None:
        """Drop messages without text that the template refuses; no text is lost."""
        remaining: list[_Turn] = []
        talk = [turn for turn in self.turns if not turn.is_system]
        for i, turn in enumerate(self.turns):
            last = i == len(self.turns) - 1
            if (
                not turn.is_empty
                or turn.kind == "tool"  # a call needs its result
                or (last and self._continues)
                or self._accepts(_empty_form(turn.kind, len(talk) == 1, last))
            ):
                remaining.append(turn)
            else:
                self._note(turn, "is empty and was left out", "it")
        if not remaining or (all(turn.is_system for turn in remaining) and talk):
            empty = next(turn for turn in (talk or self.turns) if turn.is_empty)
            reason = "must not be empty: the model's chat template refuses an empty message"
            raise InvalidMessage(f"[{empty.index}].content", reason)
        self.turns = remaining

    def pair_results(self) -> None:
        """Give each result the id of its call; turn results without a call, and calls without a result, into
        text.
        """
        turns: list[_Turn] = []
        caller: _Turn | None = None
        pending: list[str] = []
        for i, turn in enumerate([*self.turns, None]):
            kind = turn.kind if turn is not None else None
            if kind != "tool":
                if turn is not None and turn.is_system and caller is not None:
                    turns.append(turn)  # the results may come after it
                    continue
                if pending and caller is not None and not self._accepts(("user", "calls", *_AFTER[kind])):
                    self._calls_to_text(caller, pending)
                caller = None
            if turn is None:
                break
            if kind == "calls":
                caller = turn
                pending = [call.get("id", "") for call in turn.message["tool_calls"]]
            elif kind == "tool":
                turn = self._paired(turn, pending, turns, self._kind_after(i))
            turns.append(turn)
        self.turns = turns

    def _kind_after(self, i: int) -> str | None:
        """The kind of the next message that is neither a system message nor a result."""
        return next((t.kind for t in self.turns[i + 1 :] if not t.is_system and t.kind != "tool"), None)

    def _paired(self, turn: _Turn, pending: list[str], before: Sequence[_Turn], after: str | None) -> _Turn:
        id = turn.message.get("tool_call_id") or ""
        if id in pending:
            pending.remove(id)
            return turn
        if pending:
            call = pending.pop(0)
            if self._accepts(("user", "calls", "tool:other", "assistant", "user")):
                return turn
            self._note(turn, "became the result of a call before it", "its tool_call_id, which no call has")
            return _Turn({**turn.message, "tool_call_id": call}, turn.index)
        previous = next((t.kind for t in reversed(before) if not t.is_system), None)
        context: tuple[str, ...] = () if previous is None else _BEFORE[previous]
        if self._accepts((*context, "tool:other", *_AFTER[after])):
            return turn
        name = turn.message.get("name")
        self._note(turn, "was turned into a user message", "a tool result without its call")
        return _user(turn, f"Result of the tool {name}" if name else "Tool result")

    def _calls_to_text(self, caller: _Turn, ids: Sequence[str]) -> None:
        calls = caller.message["tool_calls"]
        unanswered = [call for call in calls if call.get("id", "") in ids]
        written = calls_as_text(unanswered)
        text = f"{caller.text}\n{written}" if caller.text else written
        message = {**caller.message, "content": text}
        message["tool_calls"] = [call for call in calls if call not in unanswered]
        if not message["tool_calls"]:
            del message["tool_calls"]
        caller.message = message
        self._note(caller, "has tool calls that became text", "calls without results")

    def merge_leading_systems(self) -> None:
        """Merge several leading system messages into one, unless the template shows them all."""
        n = self._n_leading
        roles = tuple(turn.kind for turn in self.turns[:n])
        rest = () if n == len(self.turns) else ("user",)
        if n < 2 or self._accepts((*roles[:_MAX_RUN], *rest)):
            return
        for turn in self.turns[1:n]:
            self._merge(self.turns[0], turn)
            self._note(turn, f"was appended to the first {roles[0]} message", "another one")
        del self.turns[1:n]

    @property
    def _n_leading(self) -> int:
        return next((i for i, turn in enumerate(self.turns) if not turn.is_system), len(self.turns))

    def place_later_systems(self) -> None:
        """Leave later system messages in place, else make them user messages, else append to the first."""
        i = self._n_leading
        while i < len(self.turns):
            end = next((j for j in range(i, len(self.turns)) if not self.turns[j].is_system), len(self.turns))
            if end == i:
                i += 1
                continue
            before = self.turns[i - 1].kind
            after = self.turns[end].kind if end < len(self.turns) else None
            roles = tuple(turn.kind for turn in self.turns[i:end])[:_MAX_RUN]
            first = (self.turns[0].kind,) if self._n_leading else ()
            if self._accepts((*first, *_BEFORE[before], *roles, *_AFTER[after])):
                i = end
            else:
                i = self._replace_systems(i, end)

    def _replace_systems(self, start: int, end: int) -> int:
        """The index of the message after those that were replaced."""
        run = self.turns[start:end]
        del self.turns[start:end]
        before = self.turns[start - 1].kind
        while start < len(self.turns) and self.turns[start].kind == "tool":
            start, before = start + 1, "tool"  # nothing may come between a call and its results
        after = self.turns[start].kind if start < len(self.turns) else None
        as_user = after == "user" or before != "tool" or self._accepts(("user", "calls", "tool", "user"))
        for turn in run:
            role = turn.message["role"]
            there = f"a {role} message there"
            if turn.is_empty:
                self._note(turn, "is empty and was left out", there)
            elif as_user:
                self.turns.insert(start, _user(turn, f"{role.capitalize()} message"))
                start += 1
                self._note(turn, "was turned into a user message", there)
            elif self._n_leading:
                self._merge(self.turns[0], turn)
                self._note(turn, f"was appended to the first {self.turns[0].kind} message", there)
            else:
                self.turns.insert(0, turn)
                start += 1
                self._note(turn, "was moved to the beginning", there)
        return start

    def answer_systems(self) -> None:
        """In a conversation of only system messages, make the last one a user message, if necessary."""
        if self._n_leading < len(self.turns):
            return
        if not self._accepts(tuple(turn.kind for turn in self.turns)[-_MAX_RUN:]):
            last = self.turns[-1]
            role = last.message["role"]
            self.turns[-1] = _user(last, f"{role.capitalize()} message")
            self._note(last, "was turned into a user message", f"a {role} message alone")

    def alternate(self) -> None:
        """Merge neighbours of one role, and fix a message that must not come first or after a result."""
        turns, self.turns = self.turns, []
        for i, turn in enumerate(turns):
            before = self.turns[-1].kind if self.turns else None
            continued = self._continues and i == len(turns) - 1
            if before == turn.kind == "user":
                self._append_or_merge(turn, ("user", "user", "assistant", "user", "user"))
            elif before == turn.kind == "assistant" and not continued:
                self._append_or_merge(turn, ("user", "assistant", "assistant", "user"))
            elif before == "assistant" and turn.kind == "calls":
                self._append_or_merge(turn, ("user", "assistant", "calls", "tool", "assistant"))
            elif before == "tool" and turn.kind == "user" and self._has_calls:
                self._after_result(turn)
            elif turn.kind in ("assistant", "calls") and self._n_leading == len(self.turns):
                self._begin(turn, continued)
            else:
                self.turns.append(turn)

    @property
    def _has_calls(self) -> bool:
        return any(turn.kind == "calls" for turn in self.turns)

    def _append_or_merge(self, turn: _Turn, form: tuple[str, ...]) -> None:
        if self._accepts(form):
            self.turns.append(turn)
            return
        role = turn.message["role"]
        self._merge(self.turns[-1], turn)
        self._note(turn, f"was merged with the {role} message before it", "two in a row")

    def _after_result(self, turn: _Turn) -> None:
        """Fix a user message right after a tool result."""
        if not self._accepts(("user", "calls", "tool", "user")):
            there = "a user message after a tool result"
            if not self._accepts(("user", "calls", "tool", "assistant:empty", "user")):
                result = self.turns[-1]
                text = f"{result.text}\n\n[User message]\n{turn.text}"
                result.message = {**result.message, "content": text}
                self._note(turn, "was appended to the tool result before it", there)
                return
            self.turns.append(_Turn({"role": "assistant", "content": ""}, turn.index))
            self._note(turn, "got an empty assistant message before it", there)
        self.turns.append(turn)

    def _begin(self, turn: _Turn, continued: bool) -> None:
        """Fix an assistant message before any user message."""
        system = tuple(leading.kind for leading in self.turns[:1])
        rest: tuple[str, ...] = ("assistant",) if continued else _AFTER[turn.kind]
        if not self._accepts((*system, *rest)):
            there = "an assistant message before the first user message"
            if self._accepts((*system, "user:empty", *rest)):
                self.turns.append(_Turn({"role": "user", "content": ""}, turn.index))
                self._note(turn, "got an empty user message before it", there)
            elif turn.kind == "calls" or continued:
                raise InvalidMessage(f"[{turn.index}]", f"the model's chat template does not accept {there}")
            else:
                self._note(turn, "was turned into a user message", there)
                turn = _user(turn, "Assistant message")
        self.turns.append(turn)

    def _merge(self, into: _Turn, turn: _Turn) -> None:
        into.message = _merged(into.message, turn.message)

    def _note(self, turn: _Turn, change: str, refused: str) -> None:
        reason = f"the chat template does not accept {refused}"
        self.changes.append((turn.index, f"messages[{turn.index}] {change}: {reason}"))


def _empty_form(kind: str, alone: bool, last: bool) -> tuple[str, ...]:
    """The probe for an empty message. alone: the other messages are all system messages."""
    if kind == "user" and (alone or last):
        return ("user:empty",) if alone else ("user", "assistant", "user:empty")
    return {
        "user": ("user:empty", "assistant", "user"),
        "assistant": ("user", "assistant:empty", "user"),
    }.get(kind, (f"{kind}:empty", "user"))


def _user(turn: _Turn, label: str) -> _Turn:
    """The text as a user message that says where it comes from."""
    return _Turn({"role": "user", "content": f"[{label}]\n{turn.text}"}, turn.index)


def _merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> Message:
    """The messages as one: texts with a blank line between, reasoning and calls one after the other."""
    texts = [text_of(message.get("content")) for message in (first, second)]
    merged: Message = {**first, "content": "\n\n".join(text for text in texts if text)}
    if first.get("name") != second.get("name"):
        merged.pop("name", None)
    reasoning = [text for message in (first, second) if (text := message.get("reasoning_content"))]
    if reasoning:
        merged["reasoning_content"] = "\n".join(reasoning)
    if calls := [*(first.get("tool_calls") or ()), *(second.get("tool_calls") or ())]:
        merged["tool_calls"] = calls
    return merged


def _limited(warnings: Iterable[str]) -> list[str]:
    """At most MAX_WARNINGS warnings, the last of which counts those left out."""
    every = list(warnings)
    if len(every) <= MAX_WARNINGS:
        return every
    rest = len(every) - MAX_WARNINGS + 1
    return [*every[: MAX_WARNINGS - 1], f"{rest} more messages were changed for the chat template"]
