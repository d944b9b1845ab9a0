"""Progress of the prompt, as chunks of a stream have it."""

from __future__ import annotations

from engine.types import Request, Timings
from server.api.common.replies.timings import prompt_progress
from server.chat.output import PromptProgress
from server.chat.prompt import Prompt
from server.generation.options import GenerationOptions
from server.generation.output_processor import OutputSequence
from support.fakes.engine import tokenizer


def test_progress_timings_count_computed_tokens():
    request = Request(id="r", prompt=[1] * 20, n_batch=8)
    sequence = OutputSequence(0, 0, Prompt(), request, GenerationOptions(id_prefix=""), tokenizer())
    sequence.timings = Timings(queue_ms=1.5, n_batch=8)
    progress = PromptProgress(20, 4, 12, 100.4)
    fields = prompt_progress(progress, sequence, timings=True)
    assert fields["prompt_progress"] == {"total": 20, "cache": 4, "processed": 12, "time_ms": 100}
    timings = fields["timings"]
    assert [timings[name] for name in ("queue_ms", "prompt_n", "cached_n", "n_batch")] == [1.5, 8, 4, 8]
    assert timings["prompt_per_token_ms"] == 100.4 / 8
    assert "timings" not in prompt_progress(progress, sequence, timings=False)
