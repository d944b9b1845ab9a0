"""From texts and messages to token ids: chat template, tokenizer, and the bounds of both."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from engine.errors import ContextOverflowError
from server.chat.template import ChatTemplate, TemplateFailed
from server.deps import Engine, ModelFacts, State
from server.errors import bad_request
from server.logprobs import TokenNames
from server.schemas.chat import ChatFields

INLINE_CHARS = 2048  # a text up to here is tokenised in the event loop: a thread would take longer
GAPS = [chr(code) for code in range(0xFDD0, 0xFDF0)]  # noncharacters, which no text should hold


async def chat_tokens(body: ChatFields, engine: Engine, state: State, warnings: list[str]) -> list[int]:
    """The prompt of a conversation. Special tokens are the template's to write, not the messages'."""
    specials = (await facts_of(engine, state)).specials
    contents = [message.content or "" for message in body.messages]
    gap = next((mark for mark in GAPS if not any(mark in content for content in contents)), "")
    shielded = [specials.sub(lambda m: m[0][0] + gap + m[0][1:], content) for content in contents]
    text = await chat_prompt(body, engine, state, shielded, warnings)
    tokenizer = engine.tokenizer
    tokens: list[int] = []
    for part in text.split(gap) if gap else [text]:
        tokens += await tokenise(part, engine, state, "messages", add_special=False)
    if tokenizer.add_bos and tokens[:1] != [tokenizer.bos_id]:  # most templates write it
        tokens.insert(0, tokenizer.bos_id)
    return tokens


async def chat_prompt(
    body: ChatFields, engine: Engine, state: State, contents: Sequence[str], warnings: list[str]
) -> str:
    """The text that the model's chat template makes of the messages, whose texts are `contents`."""
    template = await template_of(engine, state)
    messages: list[dict[str, Any]] = []
    for i, (message, content) in enumerate(zip(body.messages, contents, strict=True)):
        for name, value in (message.model_extra or {}).items():
            if value not in (None, [], ""):
                param = f"messages[{i}].{name[:64]}"
                raise bad_request(f"{param}: is not supported", param, "unsupported_value")
        named = {} if message.name is None else {"name": message.name}
        messages.append({"role": message.role, "content": content, **named})
    add = body.add_generation_prompt is not False
    try:
        text = await state.in_thread(
            template.render, messages, add_generation_prompt=add, extra=body.chat_template_kwargs
        )
    except TemplateFailed as error:
        param = "chat_template_kwargs" if str(error).startswith("chat_template_kwargs") else "messages"
        raise bad_request(str(error), param, "template_failed") from error
    for i, content in enumerate(contents):
        if content.strip() not in text:
            warnings.append(f"messages[{i}] has no effect: the chat template leaves it out")
    return text


async def template_of(engine: Engine, state: State) -> ChatTemplate:
    template = (await facts_of(engine, state)).template
    if isinstance(template, TemplateFailed):
        raise bad_request(f"{template}; give another with --chat-template", "messages", "template_failed")
    if template is None:
        message = f"model '{engine.name}' has no chat template; give one with --chat-template"
        raise bad_request(f"{message}, or use /v1/completions", "messages", "no_chat_template")
    return template


async def facts_of(engine: Engine, state: State) -> ModelFacts:
    """Worked out at the first request, since it needs the tokenizer."""
    known = state.facts.get(engine.name)
    if known is None:
        known = await state.in_thread(_find_facts, engine.tokenizer, state.chat_template)
        state.facts[engine.name] = known
    return known


def _find_facts(tokenizer: Any, source: str | None) -> ModelFacts:
    template: ChatTemplate | TemplateFailed | None = None
    if source := source or tokenizer.chat_template:
        names = ["" if i is None else tokenizer.token_text(i) for i in (tokenizer.bos_id, tokenizer.eos_id)]
        try:
            template = ChatTemplate(source, *names)
        except TemplateFailed as error:
            template = error
    specials = {tokenizer.token_text(i) for i in range(tokenizer.n_vocab) if tokenizer.is_special(i)}
    longest_first = sorted((text for text in specials if len(text) > 1), key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
    return ModelFacts(template, TokenNames(tokenizer), pattern)


async def prompt_tokens(prompt: str | Sequence[int], engine: Engine, state: State) -> list[int]:
    tokenizer = engine.tokenizer
    if isinstance(prompt, str):
        tokens = await tokenise(prompt, engine, state, "prompt")
    else:
        tokens = list(prompt)
        if tokens and max(tokens) >= tokenizer.n_vocab:
            message = f"prompt: token ids go from 0 to {tokenizer.n_vocab - 1}, not {max(tokens)}"
            raise bad_request(message, "prompt", "invalid_value")
    if not tokens:  # something must be computed: what a text begins with
        start = tokenizer.bos_id if tokenizer.bos_id is not None else tokenizer.eos_id
        if start is None:
            raise bad_request("prompt: is empty", "prompt", "invalid_value")
        tokens = [start]
    check_length(len(tokens), engine, "prompt")
    return tokens


async def tokenise(
    text: str, engine: Engine, state: State, param: str, add_special: bool = True
) -> list[int]:
    """Text → ids. What cannot fit in any case is refused before it is tokenised."""
    least = engine.tokenizer.min_tokens(text)
    if least >= engine.n_ctx:
        raise bad_request(
            f"the prompt has at least {least} tokens, but a session holds at most {engine.n_ctx}; "
            "shorten it or raise --context-size",
            param,
            "context_length_exceeded",
        )
    encode = engine.tokenizer.encode
    if len(text) <= INLINE_CHARS:
        return list(encode(text, add_special=add_special, parse_special=True))
    return list(await state.in_thread(encode, text, add_special=add_special, parse_special=True))


def check_length(n: int, engine: Engine, param: str) -> None:
    if n >= engine.n_ctx:
        raise bad_request(str(ContextOverflowError(n, engine.n_ctx)), param, "context_length_exceeded")


def echoed(prompt: str | Sequence[int], engine: Engine) -> str:
    return prompt if isinstance(prompt, str) else engine.tokenizer.decode(prompt)
