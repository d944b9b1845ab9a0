"""Measure speculative decoding: streams with drafts beside streams without.

`python -m bench.speculation --model m.gguf`: in this process, both in turns of a few tokens, so that other
work on the machine affects both alike. Drafts come from n-gram lookup, or from `--draft-model`
(`bench.related_model` writes one). Prints tokens per second and their ratio (above 1: drafts are faster), and
drafted and accepted tokens; texts follow one another in one scheduler, which learns from them as a server
does. `code` repeats a program in the prompt, `prose` is written freely. `--processor-time`: instead of
elapsed time, on a machine with other work; with one thread, since waiting threads take time as well.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import engine
from bench.run import cores
from engine.config import DRAFT_MODEL, NGRAM
from engine.scheduler.scheduler import Scheduler
from engine.types import InferenceParameters, Request

TURN = 16  # tokens of each stream
CODE = """def total(orders):
    result = 0
    for order in orders:
        if order.cancelled:
            continue
        price = order.price * order.quantity
        discount = order.customer.discount if order.customer else 0
        result += price * (1 - discount)
    return result


def report(orders, out):
    out.write("orders: %d\\n" % len(orders))
    out.write("total: %.2f\\n" % total(orders))
    for order in sorted(orders, key=lambda order: order.date):
        out.write("%s %s %d x %.2f\\n" % (order.date, order.name, order.quantity, order.price))


# again, the same two functions:
"""
PROSE = (
    "It was late in the autumn when the keeper of the lighthouse first saw the whale. ",
    "The history of the city begins with a small settlement on the bank of the river, where ",
    "Patience is not the same as waiting. Whoever waits without a purpose ",
    "To bake a good bread one needs little more than flour, water, salt and time. First ",
)


Texts = dict[str, list[int]]  # the tokens of each stream


def start(
    model: engine.Model, scheduler: Scheduler, args: argparse.Namespace, draft_max: int, seed: int
) -> Texts:
    """Begin streams, up to their first token."""
    for i in range(args.streams):
        text = CODE * 2 if args.text == "code" else PROSE[(seed + i) % len(PROSE)]
        params = InferenceParameters(
            temperature=args.temperature,
            seed=seed + i,
            top_k=40,
            top_p=0.95,
            repeat_penalty=1.0 if args.text == "code" else 1.1,
            max_tokens=args.tokens,
            ignore_eos=True,
        )
        prompt = model.tokenizer.encode(text)
        spec_type = NGRAM if args.draft_model is None else DRAFT_MODEL
        scheduler.submit(
            Request(id=str(i), prompt=prompt, params=params, draft_max=draft_max, spec_type=spec_type)
        )
    texts: Texts = {str(i): [] for i in range(args.streams)}
    while not all(texts.values()):
        step(scheduler, texts)
    return texts


def step(scheduler: Scheduler, texts: Texts) -> None:
    for output in scheduler.step():
        texts[output.id] += [token.id for token in output.tokens]


def turn(scheduler: Scheduler, n: int, texts: Texts, clock: Callable[[], float]) -> float:
    """Seconds for the next `n` tokens of all streams together."""
    end, started = scheduler.stats().predicted_tokens + n, clock()
    while scheduler.has_work and scheduler.stats().predicted_tokens < end:
        step(scheduler, texts)
    return clock() - started


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--model", type=Path, required=True)
    p.add_argument("--draft-model", type=Path)
    p.add_argument("--threads", type=int, default=cores())
    p.add_argument("--text", choices=("code", "prose"), default="prose")
    p.add_argument("--streams", type=int, default=1)
    p.add_argument("--tokens", type=int, default=200, help="of each stream")
    p.add_argument("--context", type=int, default=4096)
    p.add_argument("--times", type=int, default=4)
    p.add_argument("--temperature", type=float, default=0.0)
    p.add_argument("--processor-time", action="store_true", help="with one thread")
    args = p.parse_args()
    if args.processor_time:
        args.threads = 1
    clock = time.process_time if args.processor_time else time.perf_counter
    params = engine.ModelParameters(
        use_gpu=False,
        context_size=args.context,
        parallel=args.streams,
        n_threads=args.threads,
        draft_model=None if args.draft_model is None else str(args.draft_model),
    )
    ratios = []
    with engine.load(args.model, params) as model:
        runs = [model.scheduler(parallel=args.streams) for _ in range(2)]
        for seed in range(args.times):
            before = [run.stats() for run in runs]
            texts = [start(model, run, args, n, seed) for run, n in zip(runs, (0, 16), strict=True)]
            n = [args.tokens * args.streams - sum(map(len, text.values())) for text in texts]
            seconds = [0.0, 0.0]
            while any(run.has_work for run in runs):
                for i, run in enumerate(runs):
                    seconds[i] += turn(run, TURN * args.streams, texts[i], clock)
            stats = runs[1].stats()
            drafted = stats.draft_tokens - before[1].draft_tokens
            right = stats.draft_accepted_tokens - before[1].draft_accepted_tokens
            speeds = [tokens / s for tokens, s in zip(n, seconds, strict=True)]
            ratios.append(speeds[1] / speeds[0])
            print(
                f"without {speeds[0]:.1f}, with {speeds[1]:.1f} tokens/s: {ratios[-1]:.3f}; "
                f"{drafted} drafted, {right} right; "
                + ("the same text" if texts[0] == texts[1] else "ANOTHER TEXT"),
                flush=True,
            )
        for run in runs:
            run.close()
    drafter = "n-gram lookup" if args.draft_model is None else args.draft_model.name
    print(
        f"{args.model.name}, {drafter}, {args.text}, {args.streams} streams: {statistics.median(ratios):.2f}"
    )


if __name__ == "__main__":
    main()
