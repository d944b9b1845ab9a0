"""A chat request in the neutral form that the parsers of all APIs produce."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from engine.types import Constraint
from server.chat.tool_calls.tool import Tool, ToolChoice
from server.errors import wrong


@dataclass(frozen=True)
class ReasoningOptions:
    """How the model reasons before it answers. None: the default of the server or of the template.

    format: "none" leaves reasoning and its markers in the content; "auto" and "deepseek" split it off.
    effort: none | minimal | low | medium | high | xhigh | max. budget: maximum number of reasoning tokens;
    -1: no limit. enabled: whether the model reasons at all (`enable_thinking` of templates).
    """

    format: Literal["none", "auto", "deepseek"] | None = None
    effort: str | None = None
    budget: int | None = None
    enabled: bool | None = None


class RequestedConstraint(NamedTuple):
    """A constraint on the output, and the request field that asks for it."""

    constraint: Constraint
    param: str


@dataclass
class ChatInput:
    """A conversation in OpenAI's form, and how to continue it.

    messages: `role` (system, developer, user, assistant, tool), `content` (text, a list of parts
    `{"type": "text", "text"}`, or None), `name`; of an assistant also `reasoning_content` and
    `tool_calls: [{"id", "type": "function", "function": {"name", "arguments": JSON text}}]`; of a tool
    `tool_call_id`. Roles and types have been validated.

    add_generation_prompt: None: unless the answer continues the last message. continue_final_message: True,
    "content", "reasoning_content" or False; None: yes if the last message is the assistant's and
    add_generation_prompt is None.
    """

    messages: list[dict[str, Any]]
    tools: Sequence[Tool] = ()
    tool_choice: ToolChoice = field(default_factory=ToolChoice)
    parallel_tool_calls: bool | None = None  # None: if the model's template shows several calls in one turn
    reasoning: ReasoningOptions = ReasoningOptions()
    answer: RequestedConstraint | None = None  # what the content must match, where no tool is called
    extra: dict[str, Any] = field(default_factory=dict)  # chat_template_kwargs
    add_generation_prompt: bool | None = None
    continue_final_message: bool | str | None = None
    param: str = "messages"  # the API's field that errors about the messages name
    numbered_messages: bool = True  # the client knows the messages by their numbers here
    before: Sequence[int] = ()  # tokens of an earlier text, which the prompt follows
    schema_field: str = "parameters"  # the API's name of a tool's schema

    @property
    def continues(self) -> bool:
        """Whether the answer continues the last message."""
        if not self.messages or self.messages[-1]["role"] != "assistant":
            return False
        if self.continue_final_message is None:
            return self.add_generation_prompt is None
        return bool(self.continue_final_message)

    def check_turns(self) -> None:
        """Raises ApiError (400) if fields contradict each other or the messages."""
        name = "continue_final_message"
        if self.continue_final_message:
            if self.add_generation_prompt:
                raise wrong(name, "contradicts add_generation_prompt: true")
            if not self.continues:
                raise wrong(name, "the last message is not the assistant's")
        if not self.continues:
            return
        last = f"{self.param}[{len(self.messages) - 1}]"
        if self.messages[-1].get("tool_calls"):
            raise wrong(f"{last}.tool_calls", "the last message calls tools: their results must follow it")
        if len(self.messages) > 1 and self.messages[-2]["role"] == "assistant":
            raise wrong(last, "two messages of the assistant cannot be continued as one")
