"""From a chat of any API to its job."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from server.errors import ApiError
from server.input.chat import ChatInput, ChatPlan, plan_chat
from server.input.processor import make_job, parameters
from server.input.tokenize import facts_of

if TYPE_CHECKING:
    from server.api.common.generation_fields import GenerationFields
    from server.dependencies import Engine, State
    from server.generation.job import Job
    from server.http.middleware.access_log import Record

_LEFT_OUT = re.compile(r"messages\[(\d+)\](.*)", re.DOTALL)
_SCHEMA = re.compile(r"(tools\[\d+\])\.function\.parameters")


class Words(NamedTuple):
    """An API's names of what chats call `max_tokens` and `tools[0].function.parameters`."""

    limit: str
    schema: str


async def chat_job(
    chat: ChatInput,
    body: GenerationFields,
    engine: Engine,
    state: State,
    record: Record,
    warnings: list[str],
    *,
    words: Words,
    prefix: str,
    max_tokens: int | None,
    logprobs: int | None = None,
) -> Job:
    """`prefix`: of the job's id."""
    plan = await _planned(chat, engine, state, warnings, words)
    params = parameters(body, engine, state, max_tokens, logprobs, warnings)
    facts = await facts_of(engine, state)
    told: list[str] = []
    job = make_job(body, state, engine, facts, record, prefix, [plan.prompt], [""], params, told, plan=plan)
    job.warnings = warnings + [text.replace("max_tokens", words.limit, 1) for text in told]
    return job


async def count(
    chat: ChatInput, engine: Engine, state: State, warnings: list[str], words: Words | None = None
) -> int:
    """Tokens of the prompt."""
    if words is None:  # the chat's own
        plan = await plan_chat(chat, engine, state, warnings)
    else:
        plan = await _planned(chat, engine, state, warnings, words)
    return len(plan.prompt)


async def _planned(
    chat: ChatInput, engine: Engine, state: State, warnings: list[str], words: Words
) -> ChatPlan:
    """`plan_chat` in the words of the API."""
    told: list[str] = []
    try:
        plan = await plan_chat(chat, engine, state, told)
    except ApiError as error:
        _translate(error, chat, words)
        raise
    for text in told:
        found = _LEFT_OUT.fullmatch(text)
        if found is not None:  # its number says nothing to the client, who sent no such message
            role = chat.messages[int(found[1])]["role"]
            text = f"{chat.param}: a message of the role {role}{found[2]}"
        warnings.append(text)
    return plan


def _translate(error: ApiError, chat: ChatInput, words: Words) -> None:
    """Errors about a message name the whole field: the client knows no message of that number."""
    param = error.param
    if param is None:
        return
    if param.startswith(("messages", f"{chat.param}[")):
        error.param = chat.param
        error.message = f"{chat.param}: {error.message.removeprefix(f'{param}: ')}"
    else:
        error.param = _SCHEMA.sub(rf"\1.{words.schema}", param)
        error.message = _SCHEMA.sub(rf"\1.{words.schema}", error.message)
