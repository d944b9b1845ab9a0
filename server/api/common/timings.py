"""What responses tell of times and tokens: our names, llama-server's beside them, and rates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from engine.types import Timings

if TYPE_CHECKING:
    from server.generation.output_processor import Choice, Progress

_SUMS = [name for name in Timings.__struct_fields__ if name != "n_batch"]


def told(timings: Timings, n_steps: int | None = None) -> dict[str, Any]:
    """One sequence's, or with `n_steps` several ones'.

    The first token of each comes with its prompt, so there is one step less than tokens.
    """
    found = {name: round(getattr(timings, name), 3) for name in _SUMS}
    steps = max(timings.predicted_n - 1, 0) if n_steps is None else n_steps
    prompt_ms, predicted_ms = found["prompt_ms"], found["predicted_ms"]
    return {
        **found,
        "n_batch": timings.n_batch,
        "cache_n": timings.cached_n,
        "prompt_per_token_ms": prompt_ms / timings.prompt_n if timings.prompt_n else 0.0,
        "prompt_per_second": 1e3 * timings.prompt_n / prompt_ms if prompt_ms else 0.0,
        "predicted_per_token_ms": predicted_ms / steps if steps else 0.0,
        "predicted_per_second": 1e3 / predicted_ms * steps if predicted_ms else 0.0,
    }


def summed(each: Sequence[Timings]) -> dict[str, Any]:
    """Those of several sequences."""
    sums = {name: sum(getattr(timings, name) for timings in each) for name in _SUMS}
    return told(Timings(**sums, n_batch=each[0].n_batch), _steps(each))


def _steps(each: Iterable[Timings]) -> int:
    return sum(max(timings.predicted_n - 1, 0) for timings in each)


def per_token(choice: Choice) -> dict[str, Any]:
    """For a chunk, with `timings_per_token`."""
    return {"timings": told(choice.so_far())}


def of_prompt(progress: Progress, choice: Choice, timings: bool) -> dict[str, Any]:
    """For a chunk before the first token, with `return_progress`."""
    total, cached, processed, ms = progress
    found: dict[str, Any] = {
        "prompt_progress": {"total": total, "cache": cached, "processed": processed, "time_ms": round(ms)}
    }
    if timings:
        now = choice.timings
        so_far = Timings(
            queue_ms=now.queue_ms,
            prompt_n=processed - cached,
            cached_n=cached,
            prompt_ms=ms,
            n_batch=now.n_batch,
        )
        found["timings"] = told(so_far)
    return found
