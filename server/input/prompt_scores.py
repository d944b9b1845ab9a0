"""The log-probabilities of echoed prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.tasks.prompt_logprobs import tokens_with_logprobs
from engine.tasks.types import GetPromptLogprobs
from engine.tokenizer.detokenizer import Detokenizer
from engine.types import Token
from server.chat.output import ShownToken
from server.chat.prompt import Prompt
from server.generation.job import PromptScores
from server.generation.request_context import RequestContext
from server.generation.tasks import run_task


async def score_prompts(prompts: Sequence[Prompt], top: int, context: RequestContext) -> PromptScores:
    """The tokens of each prompt with their log-probabilities and the `top` likeliest ones.

    What is computed for it stays in the prefix cache, where the sequences find it.
    """
    scores: dict[int, list[ShownToken]] = {}
    for i, prompt in enumerate(prompts):
        tokens = await _scored(prompt.tokens, top, context)
        starts = await context.in_thread(_starts, tokens, context.engine.tokenizer, len(prompt.echo))
        scores[i] = [ShownToken(*pair) for pair in zip(tokens, starts, strict=True)]
    return scores


async def _scored(ids: list[int], top: int, context: RequestContext) -> list[Token]:
    first = Token(ids[0])  # nothing comes before it that could predict it
    if len(ids) == 1:
        return [first]
    scored = await run_task(GetPromptLogprobs(ids, top), context, "prompt")

    def read() -> list[Token]:
        import numpy as np

        return tokens_with_logprobs(ids, np.frombuffer(scored.rows, "<f8").reshape(-1, scored.width))

    return [first, *await context.in_thread(read)]


def _starts(tokens: Sequence[Token], tokenizer: Any, length: int) -> list[int]:
    """Where each token begins in the prompt's text, which has `length` characters."""
    detokenizer, starts, length_so_far = Detokenizer(tokenizer), [], 0
    for token in tokens:
        starts.append(min(length_so_far, length))
        length_so_far += len(detokenizer.push(token.id))
    return starts
