"""What every API that chats has in common: what the model is given, and how its answer is to be read.

A route turns its request into a `ChatInput`, in OpenAI's words whatever the API; `plan_chat` makes of it what
`server.convert.make_job` needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from engine.types import Constraint
from server.chat.output import OutputParser
from server.chat.tools import Tool, ToolChoice, check_tools
from server.deps import Engine, State
from server.errors import bad_request
from server.prompts import Talk, chat_tokens
from server.structured import Asked, checked


@dataclass(frozen=True)
class Reasoning:
    """How the model is to think before it answers. None: as its template and the server's settings have it.

    format: "none" leaves the reasoning in the content, markers included; "auto" and "deepseek" split it off.
    effort: none | minimal | low | medium | high | xhigh | max. budget: most tokens of reasoning; -1: no
    limit. enabled: whether it reasons at all (`enable_thinking` of templates).
    """

    format: Literal["none", "auto", "deepseek"] = "auto"
    effort: str | None = None
    budget: int | None = None
    enabled: bool | None = None


@dataclass
class ChatInput:
    """A conversation, whichever API it came by.

    messages: `role` (system, developer, user, assistant, tool), `content` (text, a list of parts
    `{"type": "text", "text"}`, or None), `name`; of an assistant also `reasoning_content` and
    `tool_calls: [{"id", "type": "function", "function": {"name", "arguments": JSON text}}]`; of a tool
    `tool_call_id`. Checked before: roles are known, texts are texts.
    """

    messages: list[dict[str, Any]]
    tools: Sequence[Tool] = ()
    tool_choice: ToolChoice = field(default_factory=ToolChoice)
    parallel_tool_calls: bool = True
    reasoning: Reasoning = Reasoning()
    answer: Asked | None = None  # what the content must match, where no tool is called
    extra: dict[str, Any] = field(default_factory=dict)  # chat_template_kwargs
    add_generation_prompt: bool | None = None  # None: unless the last message is the assistant's
    param: str = "messages"  # the field that errors about the messages name


@dataclass(frozen=True)
class ChatPlan:
    """What a job is made of. `parser` makes one parser for each choice; None: the answer is only text."""

    prompt: list[int]
    parser: Callable[[], OutputParser] | None = None
    constraint: Constraint | None = None
    thinking: Any = None  # engine.types.Thinking
    kept: frozenset[int] = frozenset()  # special tokens whose text the parser must see
    prefill: str = ""  # the beginning of the answer that the client gave


async def plan_chat(asked: ChatInput, engine: Engine, state: State, warnings: list[str]) -> ChatPlan:
    """Everything in it is checked: an ApiError (400) names what is wrong. Adds to `warnings`."""
    check_tools(asked.tools, asked.tool_choice)
    if asked.tools:
        raise bad_request("tools: is not supported by this server", "tools", "unsupported_value")
    constraint = await checked(asked.answer, engine, state)
    talk = Talk(asked.messages, asked.extra, asked.add_generation_prompt is not False)
    return ChatPlan(await chat_tokens(talk, engine, state, warnings), constraint=constraint)
