"""What constraints cost: steps of streams that must match a grammar against steps of streams that need not.

`python -m bench.constraint [--model m.gguf]`: decoding at several numbers of streams, in this process, with
and without in turns. Prints microseconds per step. step, free: medians with and without. masks: processor
time for all masks of a step, which are made in a thread while ggml computes. waiting: how much longer they
took than ggml. commit: processor time to tell the matchers the new tokens. cost: masks and commit as a
share of `free`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import engine
from bench import client, random_model
from bench.engine_step import Profile
from bench.run import cores
from engine.constraint.guide import OutputGuide, OutputGuides
from engine.types import Constraint, InferenceParameters, Request

ITEM = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 24},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "kind": {"enum": ["cat", "dog", "bird"]},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 12}, "maxItems": 4},
        "zip": {"type": "string", "pattern": "^[0-9]{5}$"},
    },
    "required": ["name", "age", "kind", "tags", "zip"],
    "additionalProperties": False,
}
SCHEMA = {"type": "array", "items": ITEM, "minItems": 100}
# As llama.cpp's grammars/json.gbnf has it, in fewer words.
GBNF = r"""root ::= "[" ws object ("," ws object){99,} "]"
value ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws (string ":" ws value ("," ws string ":" ws value)*)? "}" ws
array ::= "[" ws (value ("," ws value)*)? "]" ws
string ::= "\"" ([^"\\\x00-\x1F] | "\\" ["\\bfnrt]){0,24} "\"" ws
number ::= "-"? [0-9]{1,15} ws
ws ::= "" | " "
"""
CONSTRAINTS = {
    "json_schema": Constraint("json_schema", json.dumps(SCHEMA)),
    "gbnf": Constraint("gbnf", GBNF),
}


class Spent:
    """Adds up what calls take, in seconds."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(("masks", "waiting", "commit"), 0.0)

    def timed(self, name: str, call: Callable[..., Any], clock: Callable[[], float]) -> Callable[..., Any]:
        def timed(*args: Any) -> Any:
            start = clock()
            try:
                return call(*args)
            finally:
                self.seconds[name] += clock() - start

        return timed


def decode(
    model: engine.Model, streams: int, n: int, constraint: Constraint | None, temperature: float
) -> dict[str, float]:
    """n steps that decode `streams` sessions, after their prompts of 64 tokens."""
    scheduler = model.scheduler(parallel=streams)
    for i in range(streams):
        params = InferenceParameters(temperature=temperature, seed=i, max_tokens=n + 40, ignore_eos=True)
        prompt = client.prompt(streams * 100 + i, 64)
        request = Request(id=str(i), prompt=prompt, params=params, cache_prompt=False, constraint=constraint)
        scheduler.submit(request)
    while scheduler.stats().predicted_tokens < 2 * streams:
        scheduler.step()
    spent, commit, fill_all, end = Spent(), OutputGuide.commit, OutputGuides._fill_all, OutputGuides.end
    OutputGuide.commit = spent.timed("commit", commit, time.thread_time)  # type: ignore[method-assign]
    OutputGuides._fill_all = spent.timed("masks", fill_all, time.thread_time)  # type: ignore[method-assign]
    OutputGuides.end = spent.timed("waiting", end, time.perf_counter)  # type: ignore[method-assign]
    profile, before = Profile(scheduler), scheduler.stats().predicted_tokens
    try:
        for _ in range(n):
            profile.step()
    finally:
        OutputGuide.commit, OutputGuides._fill_all, OutputGuides.end = commit, fill_all, end  # type: ignore[method-assign]
        scheduler.close()
    assert scheduler.stats().predicted_tokens - before == n * streams, "a stream ended early"
    medians = profile.medians()
    return {**medians, **{name: seconds / n * 1e6 for name, seconds in spent.seconds.items()}}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--model", type=Path, help="default: a random 1.1B Q4_0")
    p.add_argument("--threads", type=int, default=cores())
    p.add_argument("--steps", type=int, default=60)
    p.add_argument("--times", type=int, default=2, help="runs of each kind, in turns")
    p.add_argument("--streams", type=int, nargs="+", default=[1, 4, 16])
    p.add_argument("--constraints", nargs="+", choices=CONSTRAINTS, default=list(CONSTRAINTS))
    p.add_argument("--temperature", type=float, default=1.0)
    args = p.parse_args()
    path = args.model or random_model.cached("1.1B", "q4_0")
    params = engine.ModelParameters(
        use_gpu=False,
        context_size=1024,
        parallel=max(args.streams),
        n_threads=args.threads,
        max_batch_tokens=512,
    )
    print(f"{path.name}, {args.threads} threads; microseconds per step")
    columns = ("step", "free", "masks", "waiting", "commit", "cost")
    print(f"{'':<26}" + "".join(f"{c:>10}" for c in columns))
    with engine.load(path, params) as model:
        for name in args.constraints:
            for n in args.streams:
                runs: dict[bool, list[dict[str, float]]] = {True: [], False: []}
                for _ in range(args.times):
                    for held in (False, True):
                        kind = CONSTRAINTS[name] if held else None
                        runs[held].append(decode(model, n, args.steps, kind, args.temperature))
                row = {key: statistics.median(r[key] for r in runs[True]) for key in runs[True][0]}
                free = statistics.median(r["step"] for r in runs[False])
                cost = (row["masks"] + row["commit"]) / free
                figures = [row["step"], free, row["masks"], row["waiting"], row["commit"]]
                print(f"{name}, {n} streams".ljust(26) + "".join(f"{f:>10.0f}" for f in figures), end="")
                print(f"{cost:>10.2%}")


if __name__ == "__main__":
    main()
