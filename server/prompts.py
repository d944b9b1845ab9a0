"""From texts and messages to token ids: chat template, tokenizer, and the bounds of both."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.errors import ContextOverflowError
from server.chat.specials import pattern_of
from server.chat.template import ChatTemplate, TemplateFailed
from server.deps import Engine, ModelFacts, State
from server.errors import bad_request
from server.logprobs import TokenNames
from server.schemas.chat import ChatFields
from server.schemas.common import is_token

MAX_WARNINGS = 32
MAX_LEFT_OUT = 8
INLINE_CHARS = 2048  # a text up to here is tokenised in the event loop: a thread would take longer
MARK = "\ufdd0"  # a noncharacter, which no text may hold


@dataclass
class Talk:
    """What a template is given: everything in it was written by the client."""

    messages: list[dict[str, Any]]
    extra: dict[str, Any]
    add_generation_prompt: bool

    def shielded(self, specials: re.Pattern[str]) -> Talk:
        """A copy in which MARK breaks every text of a special token.

        Tokenised piece by piece between the marks, such a text is text: only the template may say where a
        turn ends.
        """

        def broken(match: re.Match[str]) -> str:
            return match[0][0] + MARK + match[0][1:]

        def shield(value: Any) -> Any:
            if isinstance(value, str):
                return specials.sub(broken, value.replace(MARK, "\ufffd"))
            if isinstance(value, list):
                return [shield(item) for item in value]
            if isinstance(value, dict):
                return {shield(key): shield(item) for key, item in value.items()}
            return value

        extra = {name: shield(value) for name, value in self.extra.items()}
        return Talk(shield(self.messages), extra, self.add_generation_prompt)


def talk_of(body: ChatFields, warnings: list[str]) -> Talk:
    """The conversation of a request."""
    messages: list[dict[str, Any]] = []
    for i, message in enumerate(body.messages):
        for name, value in (message.model_extra or {}).items():
            if value in (None, [], ""):
                continue
            param = f"messages[{i}].{name[:64]}"
            if name in ("tool_calls", "function_call", "audio"):
                raise bad_request(f"{param}: is not supported", param, "unsupported_value")
            if len(warnings) < MAX_WARNINGS:
                warnings.append(f"{param} has no effect")
        named = {} if message.name is None else {"name": message.name}
        messages.append({"role": message.role, "content": message.content or "", **named})
    return Talk(messages, body.chat_template_kwargs or {}, body.add_generation_prompt is not False)


def check_generates(engine: Engine) -> None:
    """Refuse models that only make embeddings."""
    if (engine.info or {}).get("generates") is False:
        message = f"model: '{engine.name}' makes embeddings and cannot generate text; use /v1/embeddings"
        raise bad_request(message, "model", "cannot_generate")


async def chat_tokens(talk: Talk, engine: Engine, state: State, warnings: list[str]) -> list[int]:
    """The prompt of a conversation."""
    check_generates(engine)
    specials = (await facts_of(engine, state)).specials
    try:
        talk = await state.in_thread(talk.shielded, specials)
    except RecursionError:
        message = "chat_template_kwargs: is nested too deeply"
        raise bad_request(message, "chat_template_kwargs", "invalid_value") from None
    text = await chat_prompt(talk, engine, state, warnings)
    tokenizer = engine.tokenizer
    tokens = await tokenise(text.split(MARK), engine, state, "messages", add_special=False)
    if tokenizer.add_bos and tokens[:1] != [tokenizer.bos_id]:  # most templates write it
        tokens.insert(0, tokenizer.bos_id)
    check_length(len(tokens), engine, "messages")
    return tokens


async def chat_prompt(talk: Talk, engine: Engine, state: State, warnings: list[str]) -> str:
    """The text that the model's chat template makes of a conversation."""
    template = await template_of(engine, state)
    try:
        text, left_out = await state.in_thread(_render, template, talk)
    except TemplateFailed as error:
        param = "chat_template_kwargs" if str(error).startswith("chat_template_kwargs") else "messages"
        raise bad_request(str(error), param, "template_failed") from error
    warnings += [f"messages[{i}] has no effect: the chat template leaves it out" for i in left_out]
    return text


def _render(template: ChatTemplate, talk: Talk) -> tuple[str, list[int]]:
    """The prompt, and the messages that are not in it."""
    text = template.render(talk.messages, add_generation_prompt=talk.add_generation_prompt, extra=talk.extra)
    left_out: list[int] = []
    position = 0  # messages mostly come in order: so all of them are found in one pass
    for i, message in enumerate(talk.messages):
        content = message["content"].strip()
        found = text.find(content, position)
        if found >= 0:
            position = found + len(content)
        elif content not in text:
            left_out.append(i)
            if len(left_out) == MAX_LEFT_OUT:
                break
    return text, left_out


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
    return ModelFacts(template, TokenNames(tokenizer), pattern_of(specials))


async def prompt_tokens(prompt: str | Sequence[int], engine: Engine, state: State) -> list[int]:
    """The prompt of a completion."""
    check_generates(engine)
    tokenizer = engine.tokenizer
    if isinstance(prompt, str):
        tokens = await tokenise([prompt], engine, state, "prompt")
    else:
        check_length(len(prompt), engine, "prompt")
        tokens = list(prompt)
        wrong = next((id for id in tokens if not is_token(id) or id >= tokenizer.n_vocab), None)
        if wrong is not None:
            message = f"prompt: must hold token ids from 0 to {tokenizer.n_vocab - 1} and nothing else"
            raise bad_request(message, "prompt", "invalid_value")
    if not tokens:  # something must be computed: what a text begins with
        start = tokenizer.bos_id if tokenizer.bos_id is not None else tokenizer.eos_id
        if start is None:
            raise bad_request("prompt: is empty", "prompt", "invalid_value")
        tokens = [start]
    check_length(len(tokens), engine, "prompt")
    return tokens


async def tokenise(
    parts: Sequence[str], engine: Engine, state: State, param: str, add_special: bool = True
) -> list[int]:
    """Texts → ids, one after the other. What cannot fit in any case is refused before it is tokenised."""
    tokenizer, n_ctx = engine.tokenizer, engine.n_ctx
    least = sum(map(tokenizer.min_tokens, parts))

    def encode() -> list[int]:
        tokens: list[int] = []
        for part in parts:
            tokens += tokenizer.encode(part, add_special=add_special, parse_special=True)
            if len(tokens) > 2 * n_ctx:  # no need to know by how much
                break
        return tokens

    tokens: list[int] = []
    if least < n_ctx:
        small = len(parts) < 16 and sum(map(len, parts)) <= INLINE_CHARS
        tokens = encode() if small else await state.in_thread(encode)
    if max(least, len(tokens)) > 2 * n_ctx or least >= n_ctx:
        raise bad_request(
            f"the prompt has at least {max(least, len(tokens))} tokens, but a session holds at most {n_ctx} "
            "(including at least one to generate); shorten the prompt or raise --context-size",
            param,
            "context_length_exceeded",
        )
    return tokens


def check_length(n: int, engine: Engine, param: str) -> None:
    if n >= engine.n_ctx:
        raise bad_request(str(ContextOverflowError(n, engine.n_ctx)), param, "context_length_exceeded")


def echoed(prompt: str | Sequence[int], engine: Engine) -> str:
    return prompt if isinstance(prompt, str) else engine.tokenizer.decode(prompt)
