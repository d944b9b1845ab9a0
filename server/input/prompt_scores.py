"""Log-probabilities of prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.tasks.logprob_rows import token_ranks, tokens_with_logprobs
from engine.tasks.types import GetPromptLogprobs
from engine.tokenizer.detokenizer import Detokenizer
from engine.types import AdapterScales, Token
from server.chat.output import ShownToken
from server.chat.prompt import Prompt
from server.errors import wrong
from server.generation.job import PromptScores, ScoredPrompt
from server.generation.options import GenerationOptions
from server.generation.request_context import RequestContext
from server.generation.tasks import run_task

MAX_SCORES = 1 << 20  # log-probabilities in one response: some 70 MB of JSON


def requested_top(prompts: Sequence[Prompt], options: GenerationOptions) -> int | None:
    """How many of the most likely tokens to show for each token of the prompts; None: no scores.

    Raises ApiError if the response would be too large.
    """
    requested = {"prompt_logprobs": options.prompt_logprobs, "logprobs": options.logprobs}
    if not options.echo:
        del requested["logprobs"]
    tops = {name: top for name, top in requested.items() if top is not None}
    total = sum(len(prompt.tokens) for prompt in prompts) * options.n * sum(top + 1 for top in tops.values())
    if total > MAX_SCORES:
        message = f"{total} log-probabilities of prompts are requested, the limit is {MAX_SCORES}"
        param = max(tops, key=tops.__getitem__)
        raise wrong(param, message)
    return max(tops.values(), default=None)


async def score_prompts(
    prompts: Sequence[Prompt], top: int, lora: AdapterScales, salt: str, context: RequestContext
) -> PromptScores:
    """The tokens of each prompt with their log-probabilities and the `top` most likely tokens.

    What is computed stays in the prefix cache, where the sequences reuse it.
    """
    scores: dict[int, ScoredPrompt] = {}
    for i, prompt in enumerate(prompts):
        tokens, ranks = await _scored(GetPromptLogprobs(prompt.tokens, top, lora, salt), context)
        starts = [0] * len(tokens)
        if prompt.echo:
            starts = await context.in_thread(_starts, tokens, context.engine.tokenizer, len(prompt.echo))
        scores[i] = ScoredPrompt([ShownToken(*pair) for pair in zip(tokens, starts, strict=True)], ranks)
    return scores


async def _scored(task: GetPromptLogprobs, context: RequestContext) -> tuple[list[Token], list[int | None]]:
    """The tokens and their ranks."""
    ids = task.tokens
    first = Token(ids[0])  # nothing comes before it that could predict it
    if len(ids) == 1:
        return [first], [None]
    scored = await run_task(task, context, "prompt")

    def read() -> tuple[list[Token], list[int | None]]:
        import numpy as np

        rows = np.frombuffer(scored.rows, "<f8").reshape(-1, scored.width)
        return [first, *tokens_with_logprobs(ids, rows)], [None, *token_ranks(rows)]

    return await context.in_thread(read)


def _starts(tokens: Sequence[Token], tokenizer: Any, length: int) -> list[int]:
    """Where each token begins in the prompt's text, which has `length` characters."""
    detokenizer, starts, length_so_far = Detokenizer(tokenizer), [], 0
    for token in tokens:
        starts.append(min(length_so_far, length))
        length_so_far += len(detokenizer.push(token.id))
    return starts
