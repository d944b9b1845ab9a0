"""/metrics by llama-server's names, which dashboards use: one figure for all models, no labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.types import Timings
    from server.dependencies import Engine


class LlamaMetrics:
    """Counts what requests cost. Speeds are those between two scrapes, as llama-server's are."""

    def __init__(self) -> None:
        self.prompt_n = self.cached_n = self.predicted_n = self.longest = 0
        self.batches = 0  # of embeddings, which no scheduler counts
        self.prompt_s = self.predicted_s = 0.0
        self._before = (0, 0.0, 0, 0.0)

    def cost(self, timings: Timings) -> None:
        """One sequence that has ended."""
        self.prompt_n += timings.prompt_n
        self.cached_n += timings.cached_n
        self.predicted_n += timings.predicted_n
        self.prompt_s += timings.prompt_ms / 1000
        self.predicted_s += timings.predicted_ms / 1000
        self.longest = max(self.longest, timings.prompt_n + timings.cached_n + timings.predicted_n)

    def render(self, engines: Mapping[str, Engine], steps: float) -> str:
        """`steps`: batches of generating models since the start."""
        steps += self.batches
        stats = [engine.stats for engine in engines.values()]
        now = (self.prompt_n, self.prompt_s, self.predicted_n, self.predicted_s)
        n_prompt, prompt_s, n_predicted, predicted_s = (a - b for a, b in zip(now, self._before, strict=True))
        self._before = now
        counters: dict[str, tuple[str, Any]] = {
            "prompt_tokens_total": ("Prompt tokens computed", self.prompt_n),
            "prompt_tokens_cached_total": ("Prompt tokens found in the cache", self.cached_n),
            "prompt_seconds_total": ("Time spent on prompts", self.prompt_s),
            "tokens_predicted_total": ("Tokens generated", self.predicted_n),
            "tokens_predicted_seconds_total": ("Time spent on generating", self.predicted_s),
            "n_decode_total": ("Batches computed", steps),
            "n_tokens_max": ("Tokens of the longest sequence so far", self.longest),
            "spec_decode_num_draft_tokens_total": ("Always 0: nothing is drafted", 0),
            "spec_decode_num_accepted_tokens_total": ("Always 0: nothing is drafted", 0),
            "spec_decode_num_drafts_total": ("Always 0: nothing is drafted", 0),
        }
        gauges: dict[str, tuple[str, Any]] = {
            "prompt_tokens_seconds": (
                "Prompt tokens per second since the last scrape",
                n_prompt / prompt_s if prompt_s > 0 else 0,
            ),
            "predicted_tokens_seconds": (
                "Generated tokens per second and sequence since the last scrape",
                n_predicted / predicted_s if predicted_s > 0 else 0,
            ),
            "requests_processing": ("Sequences that hold a place", sum(s.running for s in stats)),
            "requests_deferred": ("Requests in the queue", sum(s.waiting for s in stats)),
            "n_busy_slots_per_decode": (
                "Sequences that gain a token in a batch, on average",
                self.predicted_n / steps if steps else 0,
            ),
        }
        lines = []
        for kind, metrics in (("counter", counters), ("gauge", gauges)):
            for name, (text, value) in metrics.items():
                head = f"llamacpp:{name}"
                lines += [f"# HELP {head} {text}", f"# TYPE {head} {kind}", f"{head} {value:.10g}"]
        return "\n".join(lines) + "\n"
