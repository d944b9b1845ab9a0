"""Metrics under llama-server's names, for its dashboards: one value for all models, without labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.types import Timings
    from server.worker.engine import Engine


class LlamaMetrics:
    """Sums the timings of requests. As in llama-server, speeds are those since the last scrape."""

    def __init__(self) -> None:
        self.prompt_n = self.cached_n = self.predicted_n = self.longest = 0
        self.batches = 0  # of embedding models, which have no scheduler to count them
        self.prompt_s = self.predicted_s = 0.0
        self._last_scrape = (0, 0.0, 0, 0.0)

    def add(self, timings: Timings) -> None:
        """Count a sequence that has ended."""
        self.prompt_n += timings.prompt_n
        self.cached_n += timings.cached_n
        self.predicted_n += timings.predicted_n
        self.prompt_s += timings.prompt_ms / 1000
        self.predicted_s += timings.predicted_ms / 1000
        self.longest = max(self.longest, timings.prompt_n + timings.cached_n + timings.predicted_n)

    def render(self, engines: Mapping[str, Engine], total: Callable[[str], float]) -> str:
        """The metrics in text format. total: returns a counter of `EngineStats`, summed over all engines
        since the server started.
        """
        steps, accepted = total("steps") + self.batches, total("draft_accepted_tokens")
        stats = [engine.stats for engine in engines.values()]
        now = (self.prompt_n, self.prompt_s, self.predicted_n, self.predicted_s)
        n_prompt, prompt_s, n_predicted, predicted_s = (
            a - b for a, b in zip(now, self._last_scrape, strict=True)
        )
        self._last_scrape = now
        counters: dict[str, tuple[str, Any]] = {
            "prompt_tokens_total": ("Prompt tokens computed in prefill", self.prompt_n),
            "prompt_tokens_cached_total": ("Prompt tokens reused from the KV cache", self.cached_n),
            "prompt_seconds_total": ("Seconds spent in prefill", self.prompt_s),
            "tokens_predicted_total": ("Tokens generated", self.predicted_n),
            "tokens_predicted_seconds_total": ("Seconds spent in decode", self.predicted_s),
            "n_decode_total": ("Calls of the compute graph (batches)", steps),
            "n_tokens_max": ("Length in tokens of the longest sequence so far", self.longest),
            "spec_decode_num_draft_tokens_total": ("Drafted tokens", total("draft_tokens")),
            "spec_decode_num_accepted_tokens_total": ("Drafted tokens that became text", accepted),
            "spec_decode_num_drafts_total": ("Steps of a sequence with drafts", total("drafts")),
        }
        gauges: dict[str, tuple[str, Any]] = {
            "prompt_tokens_seconds": (
                "Prefill tokens per second since the last scrape",
                n_prompt / prompt_s if prompt_s > 0 else 0,
            ),
            "predicted_tokens_seconds": (
                "Decode tokens per second of a sequence since the last scrape",
                n_predicted / predicted_s if predicted_s > 0 else 0,
            ),
            "requests_processing": ("Requests being processed", sum(s.running for s in stats)),
            "requests_deferred": ("Requests waiting in the queue", sum(s.waiting for s in stats)),
            "n_busy_slots_per_decode": (
                "Mean number of sequences that generate a token in a batch",
                max(self.predicted_n - accepted, 0) / steps if steps else 0,
            ),
        }
        lines = []
        for kind, metrics in (("counter", counters), ("gauge", gauges)):
            for name, (text, value) in metrics.items():
                head = f"llamacpp:{name}"
                lines += [f"# HELP {head} {text}", f"# TYPE {head} {kind}", f"{head} {value:.10g}"]
        return "\n".join(lines) + "\n"
