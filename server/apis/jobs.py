"""From a chat of any API to its job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.chat.plan import ChatInput, plan_chat
from server.convert import make_job, parameters
from server.prompts import facts_of

if TYPE_CHECKING:
    from server.access import Record
    from server.deps import Engine, State
    from server.generation import Job
    from server.schemas.common import GenerationFields


async def chat_job(
    chat: ChatInput,
    body: GenerationFields,
    engine: Engine,
    state: State,
    record: Record,
    warnings: list[str],
    *,
    prefix: str,
    max_tokens: int | None,
    logprobs: int | None = None,
    limit: str = "max_tokens",
) -> Job:
    """`prefix`: of the job's id. `limit`: the API's name of `max_tokens`."""
    plan = await plan_chat(chat, engine, state, warnings)
    params = parameters(body, engine, state, max_tokens, logprobs, warnings)
    facts = await facts_of(engine, state)
    told: list[str] = []
    job = make_job(
        body,
        state,
        engine,
        facts,
        record,
        prefix,
        [plan.prompt],
        [""],
        params,
        told,
        plan=plan,
    )
    job.warnings = warnings + [text.replace("max_tokens", limit, 1) for text in told]
    return job


async def count(chat: ChatInput, engine: Engine, state: State, warnings: list[str]) -> int:
    """Tokens of the prompt."""
    return len((await plan_chat(chat, engine, state, warnings)).prompt)
