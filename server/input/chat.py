"""What every API that chats has in common: what the model is given, and how its answer is to be read.

A route turns its request into a `ChatInput`; `plan_chat` makes of it what `processor.make_job` needs.
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from engine.constraint.json_schema import dumps
from engine.types import Constraint, Reasoning
from server.chat.chat_format import ChatFormat, ChatFormats
from server.chat.messages import InvalidMessage
from server.chat.parser import OutputParser
from server.chat.prompt import RenderedPrompt, render_prompt
from server.chat.reasoning import ReasoningParser, ReasoningThenCallsParser
from server.chat.request import ChatInput, ReasoningOptions, RequestedConstraint
from server.chat.template.sandbox import TemplateFailed
from server.chat.tool_calls.grammar import KINDS, answer_rule
from server.chat.tool_calls.tool import Tool, ToolChoice, check_tools
from server.chat.tool_calls.tool_call_format import ToolOptions, UnsupportedSchema
from server.dependencies import Engine, State
from server.errors import ApiError, bad_request
from server.input.constraints import checked
from server.input.tokenize import check_generates, check_length, facts_of, tokenise

if TYPE_CHECKING:
    from server.config.settings import Settings

__all__ = ["ChatInput", "ChatPlan", "ReasoningOptions", "Tool", "ToolChoice", "chat_text", "plan_chat"]
_LETTERS = string.ascii_letters + string.digits


@dataclass(frozen=True)
class ChatPlan:
    """What a job is made of.

    parser: makes one for each choice; None for answers that are only text. kept: special tokens whose text it
    must see. text: the prompt.
    """

    prompt: list[int]
    parser: Callable[[], OutputParser | None]
    constraint: Constraint | None = None
    thinking: Reasoning | None = None
    kept: frozenset[int] = frozenset()
    text: str = ""


async def plan_chat(asked: ChatInput, engine: Engine, state: State, warnings: list[str]) -> ChatPlan:
    """Everything in it is checked: an ApiError (400) names what is wrong. Adds to `warnings`."""
    check_generates(engine)
    limited = asked.reasoning.budget not in (None, -1)
    asked, composed = await _composed(asked, engine, state, shielded=True)
    warnings += composed.warnings
    prompt = await _tokens(composed, asked, engine, state)
    chat_format = composed.chat_format
    options = _offer(asked, chat_format, warnings)
    thinks = _thinks(composed)
    thinking = _thinking(asked, composed, engine) if thinks else None
    if limited and thinking is None:
        warnings.append("the budget of reasoning has no effect: the model's chat template knows none")
    constraint = await _constraint(asked, options, chat_format, engine, state, warnings)
    if (
        thinking is not None
        and thinking.budget is None
        and (constraint is None or chat_format.call_format.grammar_has_reasoning)
    ):
        thinking = None
    raw = asked.reasoning.format == "none"
    new_id = _short_id if chat_format.call_format.short_ids else _id

    def parser() -> OutputParser | None:
        call_format = chat_format.call_format
        if (whole := call_format.new_answer_parser(options, new_id, composed.text, raw)) is not None:
            return whole
        calls = None if options is None else call_format.new_parser(options, new_id)
        if not thinks or chat_format.markers is None:
            return calls
        return ReasoningThenCallsParser(
            ReasoningParser(chat_format.markers, composed.opened, raw), calls, raw
        )

    kept = chat_format.preserved_tokens(options is not None, thinks)
    return ChatPlan(prompt, parser, constraint, thinking, kept, composed.text)


async def chat_text(asked: ChatInput, engine: Engine, state: State, warnings: list[str]) -> str:
    """The prompt that the chat template makes of a conversation."""
    _, composed = await _composed(asked, engine, state, shielded=False)
    warnings += composed.warnings
    return composed.text


async def _composed(
    asked: ChatInput, engine: Engine, state: State, shielded: bool
) -> tuple[ChatInput, RenderedPrompt]:
    """The prompt, and the request with what follows from its fields together."""
    check_tools(asked.tools, asked.tool_choice)
    asked.check_turns()
    asked = _with_defaults(asked, state.settings)
    facts = await facts_of(engine, state)
    model = _model_of(facts.chat, engine)
    try:
        return asked, await state.in_thread(render_prompt, asked, model, facts.specials if shielded else None)
    except InvalidMessage as error:
        where = asked.param + error.path
        raise bad_request(f"{where}: {error}", where, "invalid_value") from None
    except TemplateFailed as error:
        param = "chat_template_kwargs" if str(error).startswith("chat_template_kwargs") else asked.param
        raise bad_request(str(error), param, "template_failed") from error
    except RecursionError:
        param = "chat_template_kwargs"
        raise bad_request(f"{param}: is nested too deeply", param, "invalid_value") from None


def _model_of(found: ChatFormats | TemplateFailed | None, engine: Engine) -> ChatFormats:
    if isinstance(found, TemplateFailed):
        raise bad_request(f"{found}; give another with --chat-template", "messages", "template_failed")
    if found is None:
        message = f"model '{engine.name}' has no chat template; give one with --chat-template"
        raise bad_request(f"{message}, or use /v1/completions", "messages", "no_chat_template")
    return found


def _with_defaults(asked: ChatInput, settings: Settings) -> ChatInput:
    """With what the server's options say where the request does not."""
    reasoning, extra = asked.reasoning, {**settings.chat_template_kwargs, **asked.extra}
    switch = extra.get("enable_thinking")
    if switch is not None and not isinstance(switch, bool):
        param = "chat_template_kwargs"
        raise bad_request(f"{param}: enable_thinking must be true or false", param, "invalid_value")
    enabled = reasoning.enabled
    if enabled is None:
        enabled = False if reasoning.effort == "none" else switch
    if enabled is None and reasoning.effort is None and settings.reasoning != "auto":
        enabled = settings.reasoning == "on"
    format = reasoning.format or settings.reasoning_format
    budget = settings.reasoning_budget if reasoning.budget is None else reasoning.budget
    reasoning = replace(reasoning, enabled=enabled, format=format, budget=None if budget < 0 else budget)
    return replace(asked, reasoning=reasoning, extra=extra)


async def _tokens(composed: RenderedPrompt, asked: ChatInput, engine: Engine, state: State) -> list[int]:
    tokenizer = engine.tokenizer
    tokens = await tokenise(composed.pieces, engine, state, asked.param, add_special=False)
    if tokenizer.add_bos and tokens[:1] != [tokenizer.bos_id]:  # most templates write it
        tokens.insert(0, tokenizer.bos_id)
    check_length(len(tokens), engine, asked.param)
    return tokens


def _offer(asked: ChatInput, chat_format: ChatFormat, warnings: list[str]) -> ToolOptions | None:
    """The tools that may be called."""
    choice = asked.tool_choice
    tools = tuple(tool for tool in asked.tools if choice.names is None or tool.name in choice.names)
    if choice.mode == "none" or not tools:
        return None
    parallel = asked.parallel_tool_calls
    if parallel is None:
        parallel = chat_format.capabilities.parallel_calls or not chat_format.capabilities.calls
    if asked.answer is None:
        return ToolOptions(tools, choice.mode == "required", parallel)
    constraint, param = asked.answer
    if choice.mode == "required":
        warnings.append(f"{param} has no effect: a tool is called in any case")
        return ToolOptions(tools, True, parallel)
    if constraint.kind not in KINDS:
        message = f"{param}: cannot be combined with tools that may be called or not"
        raise bad_request(message, param, "unsupported_value")
    return ToolOptions(tools, False, parallel, constraint)


def _thinks(composed: RenderedPrompt) -> bool:
    """Whether the answer may begin with reasoning."""
    markers = composed.chat_format.markers
    return markers is not None and not composed.begun and (composed.opened or not markers.only_opened)


def _thinking(asked: ChatInput, composed: RenderedPrompt, engine: Engine) -> Reasoning:
    """What the engine is to know of reasoning."""
    markers, budget = composed.chat_format.markers, asked.reasoning.budget
    assert markers is not None
    if asked.reasoning.enabled is False:
        budget = 0
    start, end = (_tokens_within(text.strip(), engine.tokenizer) for text in (markers.start, markers.end))
    return Reasoning(start=start, end=end, budget=budget, opened=composed.opened)


def _tokens_within(text: str, tokenizer: Any) -> tuple[int, ...]:
    """Tokens of a text that has others before it: at the very beginning some vocabularies add a space."""
    line, whole = (tokenizer.encode(t, add_special=False, parse_special=True) for t in ("\n", f"\n{text}"))
    if whole[: len(line)] == line:
        return tuple(whole[len(line) :])
    return tuple(tokenizer.encode(text, add_special=False, parse_special=True))


async def _constraint(
    asked: ChatInput,
    options: ToolOptions | None,
    chat_format: ChatFormat,
    engine: Engine,
    state: State,
    warnings: list[str],
) -> Constraint | None:
    alone = await checked(asked.answer, engine, state, warnings)
    if options is None:
        framed = _framed(asked.answer, chat_format)
        return alone if framed is asked.answer else await checked(framed, engine, state)
    try:
        text = chat_format.call_format.grammar(options, chat_format.terminals)
        if text is None:
            return None
        return await checked(RequestedConstraint(Constraint("lark", text), "tools"), engine, state)
    except UnsupportedSchema as error:
        failure = bad_request(f"tools: {error}", "tools", "unsupported_value")
    except ApiError as error:
        failure = error
    if not options.required and options.answer is None:
        warnings.append(f"tools: arguments are not held to the schemas ({failure.message})")
        return None
    for i, tool in enumerate(asked.tools):  # whose fault is it?
        schema = Constraint("json_schema", dumps(tool.schema))
        await checked(RequestedConstraint(schema, f"tools[{i}].function.parameters"), engine, state)
    raise failure


def _framed(answer: RequestedConstraint | None, chat_format: ChatFormat) -> RequestedConstraint | None:
    """What the content must match, within what it stands in."""
    if answer is None or answer.constraint.kind not in KINDS:
        return answer
    text = chat_format.call_format.answer_grammar(answer_rule(answer.constraint), chat_format.terminals)
    return answer if text is None else RequestedConstraint(Constraint("lark", text), answer.param)


def _id() -> str:
    return "call_" + secrets.token_hex(12)


def _short_id() -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(9))
