"""`context_management`: edits to a conversation before the model sees it."""

from __future__ import annotations

from typing import Any

from server.api.common.requests.parser import Fields
from server.chat.request import ChatInput
from server.errors import wrong
from server.generation.request_context import RequestContext

Edit = dict[str, Any]
MAX_EDITS = 32
_CLEAR_THINKING = "clear_thinking_20251015"
# They save context of a paid service. Here the conversation stays whole, or is refused where it does not fit.
_NOT_APPLIED = ("clear_tool_uses_20250919", "compact_20260112")


async def edit_conversation(
    management: dict[str, Any], chat: ChatInput, context: RequestContext
) -> list[Edit]:
    """Apply the supported edits to `chat`, and return those that were applied."""
    return await context.in_thread(_edit, management, chat, context)  # counts tokens


def _edit(management: dict[str, Any], chat: ChatInput, context: RequestContext) -> list[Edit]:
    fields = Fields(management, "context_management", context)
    fields.only(frozenset({"edits"}))
    edits = fields.get("edits")
    if isinstance(edits, list) and len(edits) > MAX_EDITS:
        raise wrong(fields.at("edits"), f"may hold at most {MAX_EDITS} edits, not {len(edits)}")
    applied: list[Edit] = []
    for edit in fields.objects("edits"):
        kind = edit.text("type")
        if kind == _CLEAR_THINKING:
            edit.only(frozenset({"type", "keep"}))
            n_turns = _turns_with_thinking(edit)
            if n_turns is not None:
                applied += _clear_thinking(chat, n_turns, context)
        elif kind in _NOT_APPLIED:
            context.warn(f"{edit.path} has no effect: {kind} is not applied, the conversation stays whole")
        else:
            raise wrong(edit.at("type"), f"must be one of {', '.join((_CLEAR_THINKING, *_NOT_APPLIED))}")
    return applied


def _turns_with_thinking(edit: Fields) -> int | None:
    """How many of the newest turns keep their thinking; None: all of them."""
    keep = edit.get("keep")
    if keep is None:
        return 1
    if keep == "all":
        return None
    fields = Fields(keep, edit.at("keep"), edit.context)
    if fields.one_of("type", ("thinking_turns", "all")) == "all":
        fields.only(frozenset({"type"}))
        return None
    fields.only(frozenset({"type", "value"}))
    return fields.count("value", 1)


def _clear_thinking(chat: ChatInput, n_turns: int, context: RequestContext) -> list[Edit]:
    thinking = [message for message in chat.messages if message.get("reasoning_content")]
    cleared = [message.pop("reasoning_content") for message in thinking[:-n_turns]]
    if not cleared:
        return []
    encode = context.engine.tokenizer.encode
    tokens = sum(len(encode(text, add_special=False, parse_special=False)) for text in cleared)
    return [{"type": _CLEAR_THINKING, "cleared_thinking_turns": len(cleared), "cleared_input_tokens": tokens}]
