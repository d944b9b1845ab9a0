"""The log-probabilities of an echoed prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engine.tasks.prompt_logprobs import tokens_with_logprobs
from engine.tasks.types import GetPromptLogprobs
from engine.tokenizer.detokenizer import Detokenizer
from engine.types import Token
from server.generation.output_processor import Shown
from server.worker import errands

if TYPE_CHECKING:
    from server.dependencies import Engine, State
    from server.generation.output_processor import Choice
    from server.http.middleware.access_log import Record


async def score(choices: Sequence[Choice], top: int, engine: Engine, state: State, record: Record) -> None:
    """Give each choice the tokens of its prompt with their log-probabilities, and the `top` likeliest ones.

    What is computed for it stays cached, so that the choices find their prompts there.
    """
    shown: dict[int, list[Shown]] = {}
    for choice in choices:
        if choice.prompt_index not in shown:
            tokens = await _scored(choice.request.prompt, top, engine, state, record)
            starts = await state.in_thread(_starts, tokens, engine.tokenizer, len(choice.prefix))
            shown[choice.prompt_index] = [Shown(*pair) for pair in zip(tokens, starts, strict=True)]
        choice.echoed = shown[choice.prompt_index]


async def _scored(ids: list[int], top: int, engine: Engine, state: State, record: Record) -> list[Token]:
    first = Token(ids[0])  # nothing comes before it that could predict it
    if len(ids) == 1:
        return [first]
    found = await errands.run(GetPromptLogprobs(ids, top), engine, state, record, "prompt")

    def read() -> list[Token]:
        import numpy as np

        return tokens_with_logprobs(ids, np.frombuffer(found.rows, "<f8").reshape(-1, found.width))

    return [first, *await state.in_thread(read)]


def _starts(tokens: Sequence[Token], tokenizer: Any, length: int) -> list[int]:
    """Where each token begins in the prompt's text, which has `length` characters."""
    detokenizer, starts, made = Detokenizer(tokenizer), [], 0
    for token in tokens:
        starts.append(min(made, length))
        made += len(detokenizer.push(token.id))
    return starts
