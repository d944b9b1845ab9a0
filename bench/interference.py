"""What a long prompt does to a running stream, and the stream to the prompt, beside llama.cpp's server.

`python -m bench.interference --model m.gguf`: one stream generates; after its first tokens a long prompt is
sent. Reported are the 95th percentile of the pauses between the stream's tokens before and while the prompt
is computed, and the prompt's speed alone and beside the stream.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
from itertools import pairwise
from pathlib import Path

from bench import client
from bench.run import cores
from bench.servers import Server, Settings

QUIET_TOKENS = 100  # of the stream, before the prompt is sent


def percentile_95(values: list[float]) -> float:
    return statistics.quantiles(values, n=20)[-1] if len(values) > 1 else values[0]


def pauses(times: list[float], begin: float, end: float) -> list[float]:
    """Seconds between consecutive `times` of which any part lies between `begin` and `end`."""
    return [b - a for a, b in pairwise(times) if b > begin and a < end]


def measure(port: int, n_prompt: int, n_stream: int, seed: int) -> dict[str, float]:
    """One stream of `n_stream` tokens and a prompt of `n_prompt`; times in ms, speeds in tokens/s."""
    alone = client.complete(port, client.prompt(seed, n_prompt), 1).first
    times: list[float] = []
    under_way = threading.Event()

    def arrived(at: float) -> None:
        times.append(at)
        if len(times) == QUIET_TOKENS:
            under_way.set()

    stream = threading.Thread(
        target=client.complete,
        args=(port, client.prompt(seed + 1, 16), n_stream),
        kwargs={"arrived": arrived},
        daemon=True,
    )
    stream.start()
    if not under_way.wait(600):
        raise RuntimeError(f"the stream gave {len(times)} tokens in 600 s")
    sent = times[-1]
    beside = client.complete(port, client.prompt(seed + 2, n_prompt), 1).first
    stream.join()
    during = pauses(times, sent, sent + beside)
    if times[-1] < sent + beside:
        raise RuntimeError(f"the stream ended before the prompt: raise --stream above {n_stream}")
    quiet = percentile_95(pauses(times, times[1], sent)) * 1e3
    busy = percentile_95(during) * 1e3
    return {
        "pause, alone": quiet,
        "pause, beside a prompt": busy,
        "longest pause": max(during) * 1e3,
        "pauses, ratio": busy / quiet,
        "prompt, alone": n_prompt / alone,
        "prompt, beside a stream": n_prompt / beside,
        "prompt, ratio": alone / beside,
    }


def main(argv: list[str] | None = None) -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--model", type=Path, required=True)
    p.add_argument("--only", choices=["ggserve", "xllamacpp"], help="one server alone")
    p.add_argument("--prompt", type=int, default=1500, help="tokens of the prompt")
    p.add_argument("--stream", type=int, default=600, help="tokens of the stream")
    p.add_argument("--context-size", type=int, default=2048)
    p.add_argument("--repetitions", type=int, default=3)
    p.add_argument("--threads", type=int, default=cores())
    p.add_argument("--peer-python", default=sys.executable, help="a Python that has xllamacpp")
    args = p.parse_args(argv)
    settings = Settings(args.model, args.threads, args.context_size, parallel=4, batch=512)
    results: dict[str, dict[str, float]] = {}
    for name in [args.only] if args.only else ["ggserve", "xllamacpp"]:
        with Server(name, settings, args.peer_python) as server:
            client.complete(server.port, client.prompt(0, 64), 32)  # warm
            runs = [
                measure(server.port, args.prompt, args.stream, 10 * i + 1) for i in range(args.repetitions)
            ]
        results[name] = {row: statistics.median(run[row] for run in runs) for row in runs[0]}
    print(f"{args.model.name}, prompt of {args.prompt} tokens; ms and tokens/s")
    print(f"{'':<26}" + "".join(f"{name:>12}" for name in results))
    for row in next(iter(results.values())):
        print(f"{row:<26}" + "".join(f"{result[row]:>12.2f}" for result in results.values()))


if __name__ == "__main__":
    main()
