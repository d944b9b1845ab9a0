"""Sessions to save, and everything that they can do next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import engine
from support.builders.golden import golden

GREEDY = engine.InferenceParameters(temperature=0.0, max_tokens=12, ignore_eos=True)


def load(path: Path, **params: Any) -> engine.Model:
    defaults = {"use_gpu": False, "context_size": 256, "kv_cells": 256, "n_threads": 1, "kv_type": "f32"}
    return engine.load(path, engine.ModelParameters(**{**defaults, **params}))


def start(model: engine.Model, cache_prompt: bool = False) -> engine.InferenceSession:
    return model.start_session(engine.InferenceSessionConfig(n_batch=64, cache_prompt=cache_prompt))


def go_on(session: engine.InferenceSession) -> list[Any]:
    """Everything that a session can do next: logits, generated tokens, another prompt, a step back."""
    logits: list[Any] = [session.last_logits.tolist()]
    logits += [(token.id, token.logprob) for token in session.infer(GREEDY)]
    session.feed_prompt([9, 8, 7, 6, 5])
    logits.append(session.last_logits.tolist())
    session.rewind(3)
    logits.append(session.last_logits.tolist())
    return [*logits, session.tokens]


def saved(model: engine.Model, path: Path, n: int = 100, generated: int = 5) -> engine.InferenceSession:
    """A session of `n` prompt tokens and some more that were drawn, on disk and still open."""
    session = start(model)
    session.feed_prompt(golden("llama-gqa-tied").prompt[:n])
    for _ in session.infer(engine.InferenceParameters(seed=7, max_tokens=generated, ignore_eos=True)):
        pass
    assert session.save(path) == path.stat().st_size
    return session
