"""Us and llama.cpp's server (`xllamacpp`) side by side: same GGUF, same settings, same client.

`make bench`, or `python -m bench [--model m.gguf …] [--quick]`. Servers run one after the
other, alternating, never together; every figure is the median over the repetitions. Without
`--model` it makes random-weight 1.1B files (Q4_0 and Q8_0), kept in the user's cache.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench import client, random_model
from bench.servers import Server, Settings

MB = 1 << 20
Figures = dict[str, float]


def titles(args: argparse.Namespace) -> dict[str, tuple[str, str, bool]]:
    """{row: (title, unit, more is better)}"""
    return {
        "prompt_tps": (f"prompt, {args.prompt} tokens", "tokens/s", True),
        "generate_tps": ("generation, 1 stream", "tokens/s", True),
        "ttft_ms": ("time to first token", "ms", False),
        **{f"streams_{n}": (f"throughput, {n} streams", "tokens/s", True) for n in args.streams},
        "rss_peak_mb": ("memory, peak RSS", "MB", False),
        "pss_mb": ("memory, PSS", "MB", False),
        "load_s": ("start until ready", "s", False),
    }


def measure(server: Server, rep: int, args: argparse.Namespace) -> Figures:
    """One repetition of every row against a running server."""
    seeds = iter(range(rep * 1000, rep * 1000 + 1000))
    port, rows, pss = server.port, {}, 0

    def one(n_prompt: int, n: int) -> client.Answer:
        answer = client.complete(port, client.prompt(next(seeds), n_prompt), n)
        if answer.cached or answer.prompt_tokens != n_prompt:
            raise RuntimeError(f"{server.name}: {answer} for a prompt of {n_prompt} tokens")
        return answer

    def several(value: Callable[[client.Answer], float], n_prompt: int, n: int, times: int) -> float:
        return statistics.median(value(one(n_prompt, n)) for _ in range(times))

    one(args.prompt, 8)  # warm: page cache, thread pools, reserved graphs
    rows["prompt_tps"] = several(lambda a: args.prompt / a.first, args.prompt, 1, args.times)
    rows["generate_tps"] = several(
        lambda a: (a.tokens - 1) / (a.last - a.first), 16, args.generate, args.times
    )
    rows["ttft_ms"] = several(lambda a: 1000 * a.first, 16, 1, 3 * args.times)
    pss = max(pss, server.memory()["pss"])
    for n in args.streams:
        prompts = [client.prompt(next(seeds), 64) for _ in range(n)]
        seconds, answers = client.together(port, prompts, 64)
        rows[f"streams_{n}"] = sum(a.tokens for a in answers) / seconds
        pss = max(pss, server.memory()["pss"])
    rows["rss_peak_mb"] = server.memory()["rss_peak"] / MB
    rows["pss_mb"] = pss / MB
    rows["load_s"] = server.load_s
    return rows


def compare(model: Path, names: list[str], args: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """{server: {row: values of all repetitions}}, alternating who goes first."""
    settings = Settings(
        model, args.threads, args.context_size, max(args.streams), args.batch_size, args.flash_attn
    )
    values: dict[str, dict[str, list[float]]] = {name: {} for name in names}
    for rep in range(args.repetitions):
        for name in names if rep % 2 == 0 else reversed(names):
            with Server(name, settings, args.peer_python) as server:
                for row, value in measure(server, rep, args).items():
                    values[name].setdefault(row, []).append(value)
            shown = " ".join(f"{r}={v[-1]:.1f}" for r, v in values[name].items())
            print(f"  {rep + 1}/{args.repetitions} {name}: {shown}", file=sys.stderr, flush=True)
    return values


def table(model: str, values: dict[str, dict[str, list[float]]], args: argparse.Namespace) -> list[dict]:
    """Prints the medians and, with both servers, the ratio (above 1: ours is better)."""
    names = list(values)
    print(f"\n{model}")
    print(
        f"{'':<28}{'':<10}"
        + "".join(f"{n:>12}" for n in names)
        + (f"{'ratio':>9}" if len(names) == 2 else "")
    )
    out = []
    for row, (title, unit, more) in titles(args).items():
        medians = [statistics.median(values[n][row]) for n in names]
        ratio = None
        if len(names) == 2:
            ratio = medians[0] / medians[1] if more else medians[1] / medians[0]
        line = f"{title:<28}{unit:<10}" + "".join(f"{m:>12.1f}" for m in medians)
        print(line + (f"{ratio:>8.2f}x" if ratio else ""))
        out.append(
            {
                "row": row,
                "title": title,
                "unit": unit,
                "more_is_better": more,
                "ratio": ratio,
                "median": dict(zip(names, medians, strict=True)),
                "values": {n: values[n][row] for n in names},
            }
        )
    return out


def machine() -> dict[str, object]:
    cpu = (
        next(
            (
                line.split(":")[1].strip()
                for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")
            ),
            platform.processor(),
        )
        if Path("/proc/cpuinfo").exists()
        else ""
    )
    return {
        "cpu": cpu,
        "cores": cores(),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
    }


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--model", type=Path, action="append", help="GGUF to serve; repeatable")
    p.add_argument("--only", choices=["ggserve", "xllamacpp"], help="one server alone")
    p.add_argument(
        "--quick", action="store_true", help="tiny model, one short repetition: checks the harness"
    )
    p.add_argument("--repetitions", type=int, default=3)
    p.add_argument("--times", type=int, default=3, help="requests per figure in a repetition")
    p.add_argument("--threads", type=int, default=cores())
    p.add_argument("--context-size", type=int, default=1024)
    p.add_argument("--batch-size", type=int, default=512)
    p.add_argument("--prompt", type=int, default=512, help="tokens of the long prompt")
    p.add_argument("--generate", type=int, default=128)
    p.add_argument("--streams", type=int, nargs="+", default=[1, 4, 16])
    p.add_argument("--flash-attn", choices=["auto", "on", "off"], default="auto")
    p.add_argument("--peer-python", default=sys.executable, help="a Python that has xllamacpp")
    p.add_argument("--out", type=Path, default=Path("bench/out"), help="folder for JSON and plot")
    args = p.parse_args(argv)
    if args.quick:
        args.repetitions, args.times, args.generate = 1, 1, 32
    if not args.model:
        shape = "tiny" if args.quick else "1.1B"
        args.model = [random_model.cached(shape, kind) for kind in ("q4_0", "q8_0")]
    return args


def main(argv: list[str] | None = None) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leaves no server behind
    args = arguments(argv)
    names = [args.only] if args.only else ["ggserve", "xllamacpp"]
    host = machine()
    if host["load_before"] > 0.3 * host["cores"]:
        print(
            f"warning: the machine is busy (load {host['load_before']:.2f}); figures will be noisy",
            file=sys.stderr,
        )
    print(
        f"{host['cpu']}, {host['cores']} cores, {args.threads} threads, context {args.context_size}, "
        f"parallel {max(args.streams)}, batch {args.batch_size}, flash-attn {args.flash_attn}"
    )
    results = []
    for model in args.model:
        print(f"{model.name}:", file=sys.stderr)
        results.append(
            {
                "model": model.name,
                "bytes": model.stat().st_size,
                "rows": table(model.name, compare(model, names, args), args),
            }
        )
    settings = {k: v for k, v in vars(args).items() if isinstance(v, int | str | list) and k != "model"}
    report = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": host,
        "settings": settings,
        "results": results,
    }
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(f"\n{path}")
    try:
        from bench import plot
    except ImportError:
        print("no plot: matplotlib is missing (pip install '.[bench]')", file=sys.stderr)
    else:
        print(plot.draw(report, path.with_suffix(".svg")))


if __name__ == "__main__":
    main()
