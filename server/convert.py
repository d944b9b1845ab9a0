"""From a checked body to a job: limits, template, tokens, parameters."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from engine import sampling
from engine.errors import ConfigError, ContextOverflowError
from engine.types import InferenceParameters
from engine.types import Request as EngineRequest
from server.chat.template import ChatTemplate, TemplateFailed
from server.deps import Engine, ModelFacts, State
from server.errors import ApiError, bad_request
from server.generation import Choice, Job, new_id
from server.logprobs import TokenNames
from server.schemas.chat import ChatFields, ChatRequest
from server.schemas.common import GenerationFields, Schema
from server.schemas.completions import CompletionRequest

if TYPE_CHECKING:
    from server.access import Record

INLINE_CHARS = 2048  # a text up to here is tokenised in the event loop: a thread would take longer
SEEDS = 2**64

_SAME_NAME = ["min_tokens", "ignore_eos", "seed", "logit_bias", "repeat_penalty", "frequency_penalty", "presence_penalty", "repeat_last_n", "mirostat", "mirostat_tau", "mirostat_eta", "top_k", "tfs_z", "typical_p", "top_p", "min_p", "top_a", "temperature"]

# Fields of the official APIs that change the answer and that we do not have: refused, except at the values
# listed, which ask for nothing.
_REFUSED: dict[str, tuple[Any, ...]] = {
    "suffix": ("",),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"], []),
    "audio": (),
    "web_search_options": (),
    "grammar": ("",),
    "json_schema": ({},),
}
# Fields of the official APIs that change nothing here; no word about them at the values listed.
_IDLE: dict[str, tuple[Any, ...]] = {
    "metadata": ({},),
    "store": (False,),
    "service_tier": ("auto", "default"),
    "parallel_tool_calls": (True,),
}


async def completion(body: CompletionRequest, state: State, record: Record) -> Job:
    """POST /v1/completions."""
    engine = state.engine(body.model)
    warnings = unknown_fields(body)
    n = body.n or 1
    total = n * len(body.prompt)
    if total > state.settings.max_choices:
        param = "n" if len(body.prompt) <= state.settings.max_choices else "prompt"
        raise too_many_choices(param, total, state)
    if body.best_of is not None and body.best_of != n:
        raise bad_request("best_of: only the value of n is supported", "best_of", "unsupported_value")
    if body.echo and body.logprobs is not None:
        message = "logprobs: log-probabilities of the prompt (echo) are not supported"
        raise bad_request(message, "logprobs", "unsupported_value")
    prompts = [await prompt_tokens(prompt, engine, state) for prompt in body.prompt]
    texts = [echoed(p, engine) for p in body.prompt] if body.echo else [""] * len(prompts)
    params = parameters(body, engine, state, body.max_tokens or None, body.logprobs, warnings)
    if body.max_tokens == 0:  # only computes the prompt, for later requests to find it in the cache
        params = msgspec.structs.replace(params, max_tokens=0)
    facts = await facts_of(engine, state)
    return make_job(body, state, engine, facts, record, "cmpl-", prompts, texts, params, warnings)


async def chat(body: ChatRequest, state: State, record: Record) -> Job:
    """POST /v1/chat/completions."""
    engine = state.engine(body.model)
    warnings = unknown_fields(body)
    if (body.n or 1) > state.settings.max_choices:
        raise too_many_choices("n", body.n or 1, state)
    if body.top_logprobs is not None and not body.logprobs:
        raise bad_request("top_logprobs: needs logprobs: true", "top_logprobs", "invalid_value")
    limits = [n for n in (body.max_completion_tokens, body.max_tokens) if n is not None]
    if len(set(limits)) > 1:
        warnings.append("max_tokens has no effect: max_completion_tokens is given")
    text = await chat_prompt(body, engine, state, warnings)
    tokens = await tokenise(text, engine, state, "messages")
    tokenizer = engine.tokenizer
    if len(tokens) > 1 and tokens[0] == tokens[1] == tokenizer.bos_id and tokenizer.add_bos:
        del tokens[0]  # the template wrote it, too
    check_length(len(tokens), engine, "messages")
    logprobs = (body.top_logprobs or 0) if body.logprobs else None
    params = parameters(body, engine, state, limits[0] if limits else None, logprobs, warnings)
    facts = await facts_of(engine, state)
    return make_job(body, state, engine, facts, record, "chatcmpl-", [tokens], [""], params, warnings)


async def chat_prompt(
    body: ChatFields, engine: Engine, state: State, warnings: list[str] | None = None
) -> str:
    """The text that the model's chat template makes of the messages."""
    template = await template_of(engine, state)
    messages: list[Mapping[str, Any]] = []
    for i, message in enumerate(body.messages):
        for name, value in (message.model_extra or {}).items():
            if value not in (None, [], ""):
                message_text = f"messages[{i}].{name[:64]}: is not supported"
                raise bad_request(message_text, f"messages[{i}].{name[:64]}", "unsupported_value")
        shown = {"role": message.role, "content": message.content or ""}
        if message.name is not None:
            shown["name"] = message.name
        messages.append(shown)
    add = body.add_generation_prompt is not False
    try:
        text = await template.render_in_thread(
            messages, add_generation_prompt=add, extra=body.chat_template_kwargs
        )
    except TemplateFailed as error:
        param = "chat_template_kwargs" if str(error).startswith("chat_template_kwargs") else "messages"
        raise bad_request(str(error), param, "template_failed") from error
    if warnings is not None:
        for i, message in enumerate(messages):
            if message["content"].strip() not in text:
                warnings.append(f"messages[{i}] has no effect: the chat template leaves it out")
    return text


async def template_of(engine: Engine, state: State) -> ChatTemplate:
    template = (await facts_of(engine, state)).template
    if isinstance(template, TemplateFailed):
        raise bad_request(f"{template}; give another with --chat-template", "messages", "template_failed")
    if template is None:
        message = f"model '{engine.name}' has no chat template; give one with --chat-template, or use /v1/completions"
        raise bad_request(message, "messages", "no_chat_template")
    return template


async def facts_of(engine: Engine, state: State) -> ModelFacts:
    """Worked out at the first request, since it needs the tokenizer."""
    known = state.facts.get(engine.name)
    if known is None:
        known = await asyncio.to_thread(_find_facts, engine.tokenizer, state.chat_template)
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
    return ModelFacts(template, max(tokenizer.max_token_chars, 1), TokenNames(tokenizer))


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


async def tokenise(text: str, engine: Engine, state: State, param: str) -> list[int]:
    """Text → ids. What cannot fit in any case is refused before it is tokenised."""
    least = -(-len(text) // (await facts_of(engine, state)).max_piece)
    if least >= 4 * engine.n_ctx:  # normalisation may shorten a text, but not to a quarter
        raise bad_request(
            f"the prompt has at least {least} tokens, but a session holds at most {engine.n_ctx}; "
            "shorten it or raise --context-size",
            param,
            "context_length_exceeded",
        )
    encode = engine.tokenizer.encode
    if len(text) <= INLINE_CHARS:
        return list(encode(text, add_special=True, parse_special=True))
    return list(await asyncio.to_thread(encode, text, add_special=True, parse_special=True))


def check_length(n: int, engine: Engine, param: str) -> None:
    if n >= engine.n_ctx:
        raise bad_request(str(ContextOverflowError(n, engine.n_ctx)), param, "context_length_exceeded")


def echoed(prompt: str | Sequence[int], engine: Engine) -> str:
    return prompt if isinstance(prompt, str) else engine.tokenizer.decode(prompt)


def parameters(
    body: GenerationFields,
    engine: Engine,
    state: State,
    max_tokens: int | None,
    logprobs: int | None,
    warnings: list[str],
) -> InferenceParameters:
    """Checked sampling parameters. Adds to `warnings` what has no effect."""
    given = {name: v for name in _SAME_NAME if (v := getattr(body, name)) is not None}
    seed = given.get("seed", state.settings.seed)
    given["seed"] = None if seed is None else seed % SEEDS
    asked = InferenceParameters(
        max_tokens=max_tokens,
        logprobs=logprobs,
        stop_token_ids=tuple(body.stop_token_ids or ()),
        **given,
    )
    try:
        checked = sampling.validate(asked, engine.tokenizer.n_vocab, engine.n_ctx)
    except ConfigError as error:
        param = str(error).split(" ", 1)[0]
        raise bad_request(str(error), param, "invalid_value") from error
    warnings += sampling.warnings(checked)
    if body.stop and "" in body.stop:
        warnings.append("stop has no effect where it is an empty string")
    if body.stream_options is not None:
        if not body.stream:
            warnings.append("stream_options has no effect: stream is not true")
        if body.stream_options.include_obfuscation:
            warnings.append("stream_options.include_obfuscation has no effect")
    return checked


def batch_size(body: GenerationFields, engine: Engine, state: State, warnings: list[str]) -> int:
    if body.batch_size is not None and body.n_batch is not None and body.batch_size != body.n_batch:
        raise bad_request("n_batch: differs from batch_size, which is the same", "n_batch", "invalid_value")
    asked = body.batch_size if body.batch_size is not None else body.n_batch
    if asked is not None and asked > engine.max_batch_size:
        warnings.append(f"batch_size: {engine.max_batch_size} is in force, the server's limit")
    return min(asked or state.settings.batch_size, engine.max_batch_size)


def make_job(
    body: GenerationFields,
    state: State,
    engine: Engine,
    facts: ModelFacts,
    record: Record,
    prefix: str,
    prompts: Sequence[list[int]],
    texts: Sequence[str],
    params: InferenceParameters,
    warnings: list[str],
) -> Job:
    id = new_id(prefix)
    n_batch = batch_size(body, engine, state, warnings)
    limits = [state.settings.request_timeout_s and state.settings.request_timeout_s * 1000, body.timeout_ms]
    limit = min((ms for ms in limits if ms), default=None)
    deadline = None if limit is None else time.monotonic() * 1000 + limit
    tokenizer = engine.tokenizer
    final_ids = frozenset(params.stop_token_ids) | tokenizer.eog_ids
    stops = [stop for stop in body.stop or () if stop]
    show = bool(body.return_tokens) or params.logprobs is not None
    n = body.n or 1
    choices = []
    for i, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
        room = engine.n_ctx - len(prompt)
        if params.max_tokens is not None and params.max_tokens > room:
            warnings.append(f"max_tokens: only {room} tokens fit after the prompt")
        for j in range(n):
            seed = (params.seed + j) % SEEDS if params.seed is not None else None
            request = EngineRequest(
                id=f"{id}-{len(choices)}" if n * len(prompts) > 1 else id,
                prompt=prompt,
                params=msgspec.structs.replace(params, seed=seed) if j else params,
                n_batch=n_batch,
                cache_prompt=body.cache_prompt is not False,
                deadline_ms=deadline,
            )
            choices.append(Choice(len(choices), i, request, tokenizer, stops, final_ids, show, text))
    options = body.stream_options
    return Job(
        state,
        engine,
        facts,
        record,
        id=id,
        choices=choices,
        warnings=warnings,
        stream=bool(body.stream),
        include_usage=bool(body.stream and options and options.include_usage),
    )


def unknown_fields(body: Schema, refuse: bool = True) -> list[str]:
    """A warning for each field that we do not know; an error for one that asks for what we do not do."""
    warnings = []
    for name, value in (body.model_extra or {}).items():
        if value is None or value in _IDLE.get(name, ()):
            continue
        if refuse and name in _REFUSED:
            if value in _REFUSED[name]:
                continue
            raise bad_request(f"{name}: is not supported by this server", name, "unsupported_value")
        if len(warnings) >= 32:
            warnings.append("further unknown fields have no effect")
            break
        warnings.append(f"{name[:64]} has no effect")
    return warnings


def too_many_choices(param: str, total: int, state: State) -> ApiError:
    message = (
        f"{param}: {total} completions (n x prompts) asked for, at most {state.settings.max_choices} are made"
    )
    return bad_request(message, param, "invalid_value")
