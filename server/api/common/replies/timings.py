"""`timings` of responses: times and tokens by our names, by llama-server's, and rates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from engine.types import Timings
from server.chat.output import PromptProgress
from server.generation.output_processor import OutputSequence

_SUMS = [name for name in Timings.__struct_fields__ if name != "n_batch"]


def timings_reply(timings: Timings, n_steps: int | None = None) -> dict[str, Any]:
    """Of one sequence, or with `n_steps` decode steps of several.

    The first token of each comes with its prompt, so there is one step less than tokens.
    """
    values = {name: round(getattr(timings, name), 3) for name in _SUMS}
    steps = max(timings.predicted_n - 1, 0) if n_steps is None else n_steps
    prompt_ms, predicted_ms = values["prompt_ms"], values["predicted_ms"]
    return {
        **values,
        "n_batch": timings.n_batch,
        "cache_n": timings.cached_n,
        "prompt_per_token_ms": prompt_ms / timings.prompt_n if timings.prompt_n else 0.0,
        "prompt_per_second": 1e3 * timings.prompt_n / prompt_ms if prompt_ms else 0.0,
        "predicted_per_token_ms": predicted_ms / steps if steps else 0.0,
        "predicted_per_second": 1e3 / predicted_ms * steps if predicted_ms else 0.0,
    }


def total_timings(each: Sequence[Timings]) -> dict[str, Any]:
    """The sums of several sequences."""
    sums = {name: sum(getattr(timings, name) for timings in each) for name in _SUMS}
    return timings_reply(Timings(**sums, n_batch=each[0].n_batch), _steps(each))


def _steps(each: Iterable[Timings]) -> int:
    return sum(max(timings.predicted_n - 1, 0) for timings in each)


def timings_so_far(sequence: OutputSequence) -> dict[str, Any]:
    """Fields of a chunk, with `timings_per_token`."""
    return {"timings": timings_reply(sequence.so_far())}


def prompt_progress(progress: PromptProgress, sequence: OutputSequence, timings: bool) -> dict[str, Any]:
    """Fields of a chunk before the first token, with `return_progress`."""
    total, cached, processed, ms = progress
    fields: dict[str, Any] = {
        "prompt_progress": {"total": total, "cache": cached, "processed": processed, "time_ms": round(ms)}
    }
    if timings:
        now = sequence.timings
        so_far = Timings(
            queue_ms=now.queue_ms,
            prompt_n=processed - cached,
            cached_n=cached,
            prompt_ms=ms,
            n_batch=now.n_batch,
        )
        fields["timings"] = timings_reply(so_far)
    return fields
