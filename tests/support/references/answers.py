"""What a model answers when it is alone with a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import engine
from engine.types import FinishReason, InferenceParameters, Request, Timings
from support.fakes.runner import drain

GREEDY = InferenceParameters(temperature=0.0, max_tokens=24, ignore_eos=True)


def answer(model: engine.Model, prompt: Sequence[int], **more: Any) -> tuple[list[int], Timings]:
    """24 greedy tokens, and what they cost; the cache is checked after each step."""
    scheduler = model.scheduler()
    scheduler.submit(Request(id="x", prompt=list(prompt), params=GREEDY, **more))
    outcome = drain(scheduler)
    timings = outcome.last["x"].timings
    assert outcome.finish("x") is FinishReason.LENGTH
    assert timings is not None
    assert timings.cached_n + timings.prompt_n == len(prompt)
    return outcome.tokens["x"], timings
