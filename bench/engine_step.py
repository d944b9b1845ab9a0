"""Where a step's time goes: ggml's compute against everything else that the engine does for a step.

`python -m bench.engine_step [--model m.gguf]`: a prefill, then decoding at several numbers of streams,
in this process, without HTTP. Prints the median of each part in microseconds per step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import engine
from bench import client, random_model
from bench.run import cores
from engine.types import EngineStats, InferenceParameters, Request

PARTS = ("schedule", "run", "postprocess")


class Profile:
    """Times of the three calls that a step consists of; `compute` is the share of `run` inside ggml."""

    def __init__(self, scheduler: engine.Scheduler) -> None:
        self.scheduler = scheduler
        self.steps: list[dict[str, float]] = []
        for part in PARTS:
            setattr(scheduler, f"_{part}", self._timed(part, getattr(scheduler, f"_{part}")))

    def _timed(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any) -> Any:
            start = time.perf_counter()
            try:
                return call(*args)
            finally:
                self.now[part] = (time.perf_counter() - start) * 1e6

        return timed

    def step(self) -> None:
        self.now: dict[str, float] = dict.fromkeys(PARTS, 0.0)
        before = self.scheduler.stats()
        start = time.perf_counter()
        self.scheduler.step()
        self.now["step"] = (time.perf_counter() - start) * 1e6
        after: EngineStats = self.scheduler.stats()
        self.now["compute"] = (after.compute_ms - before.compute_ms) * 1e3
        self.steps.append(self.now)

    def medians(self) -> dict[str, float]:
        median_of = {
            part: statistics.median(s[part] for s in self.steps) for part in (*PARTS, "step", "compute")
        }
        median_of["outside"] = statistics.median(s["step"] - s["compute"] for s in self.steps)
        median_of["outside_share"] = median_of["outside"] / median_of["step"]
        median_of["n"] = len(self.steps)
        return median_of


def decode(model: engine.Model, streams: int, n: int, logprobs: int | None) -> dict[str, float]:
    """n steps that decode `streams` sessions, after their prompts of 64 tokens."""
    scheduler = model.scheduler(parallel=streams)
    params = InferenceParameters(temperature=0.0, max_tokens=n + 8, ignore_eos=True, logprobs=logprobs)
    for i in range(streams):
        prompt = client.prompt(streams * 100 + i, 64)
        scheduler.submit(Request(id=str(i), prompt=prompt, params=params, cache_prompt=False))
    while scheduler.stats().predicted_tokens < 2 * streams:
        scheduler.step()
    profile = Profile(scheduler)
    for _ in range(n):
        profile.step()
    scheduler.close()
    return profile.medians()


def prefill(model: engine.Model, n_tokens: int, times: int) -> dict[str, float]:
    """Steps that compute a whole prompt of n_tokens at once."""
    scheduler = model.scheduler()
    profile = Profile(scheduler)
    for i in range(times):
        params = InferenceParameters(temperature=0.0, max_tokens=1, ignore_eos=True)
        prompt = client.prompt(9000 + i, n_tokens)
        scheduler.submit(
            Request(id=f"p{i}", prompt=prompt, params=params, n_batch=n_tokens, cache_prompt=False)
        )
        while scheduler.has_work:
            profile.step()
    scheduler.close()
    return profile.medians()


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--model", type=Path, help="default: a random 1.1B Q4_0")
    p.add_argument("--threads", type=int, default=cores())
    p.add_argument("--steps", type=int, default=40)
    p.add_argument("--prompt", type=int, default=512)
    p.add_argument("--streams", type=int, nargs="+", default=[1, 4, 8, 16])
    p.add_argument("--logprobs", type=int, help="ask for log-probabilities, which cost a pass over the row")
    p.add_argument("--json", type=Path, help="also write the figures there")
    args = p.parse_args()
    path = args.model or random_model.cached("1.1B", "q4_0")
    params = engine.ModelParameters(
        use_gpu=False,
        context_size=1024,
        parallel=max(args.streams),
        n_threads=args.threads,
        max_batch_tokens=512,
    )
    rows = {}
    with engine.load(path, params) as model:
        rows[f"prefill {args.prompt}"] = prefill(model, args.prompt, 3)
        for n in args.streams:
            rows[f"decode {n}"] = decode(model, n, args.steps, args.logprobs)
    columns = ("step", "compute", "schedule", "run", "postprocess", "outside")
    print(f"{path.name}, {args.threads} threads; microseconds per step, medians")
    print(f"{'':<14}" + "".join(f"{c:>12}" for c in columns) + f"{'outside':>10}")
    for name, row in rows.items():
        print(f"{name:<14}" + "".join(f"{row[c]:>12.0f}" for c in columns) + f"{row['outside_share']:>9.2%}")
    print("run = compute + filling the batch, building the graph where its shape is new, reading logits")
    if args.json:
        args.json.write_text(
            json.dumps({"model": path.name, "threads": args.threads, "rows": rows}, indent=1)
        )
        print(args.json, file=sys.stderr)


if __name__ == "__main__":
    main()
