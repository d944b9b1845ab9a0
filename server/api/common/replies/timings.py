"""Fields of streamed chunks: timings so far, and prefill progress."""

from __future__ import annotations

from typing import Any

from engine.types import Timings
from server.chat.output import PromptProgress
from server.generation.job import timings_reply
from server.generation.output_processor import OutputSequence


def timings_so_far(sequence: OutputSequence) -> dict[str, Any]:
    """The fields that `timings_per_token` adds to a chunk."""
    return {"timings": timings_reply(sequence.so_far())}


def prompt_progress(progress: PromptProgress, sequence: OutputSequence, timings: bool) -> dict[str, Any]:
    """The fields that `return_progress` adds to chunks before the first token."""
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
