"""`ggserve bench`: prefill speed by batch size, and decode speed, of a model on chosen devices."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from engine.config import InferenceSessionConfig
from engine.errors import ConfigError
from engine.types import InferenceParameters
from server.cli.command import Parser, configure_quiet_logging, single_model
from server.cli.console import LoadProgress
from server.config import sources

EXAMPLES = """\
  ggserve bench -m model.gguf --n-batch 8,64,256,512              prefill speed by batch size
  ggserve bench -m model.gguf --use-gpu --gpu-layers 20 --json    for programs
  ggserve bench -m model.gguf --plot speed.svg                    a plot (pip install 'ggserve[bench]')"""
OPTIONS = (
    *("model", "lora", "use_gpu", "gpu_layers", "cpu_moe", "n_cpu_moe", "override_tensor", "device"),
    *("tensor_split", "rpc", "threads", "no_mmap"),
    *("mlock", "flash_attn", "kv_type", "log_level", "log_format"),
)


def _parser() -> Parser:
    description = (
        "Measure tokens per second: prefill of a prompt of --prompt-tokens for each n_batch, then decode\n"
        "for one request. Larger batches speed prefill up until the device is fully used."
    )
    parser = Parser("ggserve bench", description, EXAMPLES)
    sizes = "batch sizes, separated by commas (default: 8,64,256,512)"
    parser.add_argument("--n-batch", metavar="N,N", type=_sizes, default=[8, 64, 256, 512], help=sizes)
    parser.add_argument(
        "--prompt-tokens", metavar="N", type=int, default=512, help="prompt length (default: 512)"
    )
    parser.add_argument(
        "--generate", metavar="N", type=int, default=32, help="tokens to decode (default: 32)"
    )
    parser.add_argument(
        "--repeat", metavar="N", type=int, default=3, help="report the median of N runs (default: 3)"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of a table")
    parser.add_argument(
        "--plot", metavar="FILE", type=Path, help="plot prefill speed to FILE.svg or FILE.png"
    )
    sources.add_options(parser, serve=False, names=OPTIONS)
    return parser


def _sizes(text: str) -> list[int]:
    try:
        sizes = sorted({int(part) for part in text.split(",")})
    except ValueError:
        sizes = []
    if not sizes or sizes[0] < 1 or sizes[-1] > 1 << 20:
        raise argparse.ArgumentTypeError(f"must be numbers separated by commas, such as 8,64, not {text!r}")
    return sizes


def run(arguments: list[str]) -> int:
    args = _parser().parse_args(arguments)
    for name in ("prompt_tokens", "generate", "repeat"):
        if getattr(args, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')} is {getattr(args, name)}; it must be at least 1")
    if args.plot is not None and args.plot.suffix not in (".svg", ".png"):
        raise ConfigError(f"--plot {args.plot}: must end in .svg or .png")
    settings = sources.load(sources.from_arguments(args), args.config)
    configure_quiet_logging(settings)
    name, path = single_model(settings, "bench")
    n_ctx = args.prompt_tokens + args.generate
    params = dataclasses.replace(
        settings.model_parameters(),
        context_size=n_ctx,
        kv_cells=n_ctx,
        parallel=1,
        max_batch_tokens=min(args.n_batch[-1], args.prompt_tokens),
    )
    from engine.engine import load

    with LoadProgress(bar=True) as progress:
        model = load(path, params, progress=lambda f, text: progress(name, f, text))
    with model:
        report = measure(model, name, args)
    if args.json:
        sys.stdout.write(json.dumps(report, indent=2) + "\n")
    else:
        sys.stdout.write(table(report))
    if args.plot is not None:
        draw(report, args.plot)
        sys.stderr.write(f"{args.plot}\n")
    return 0


def measure(model: Any, name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Median tokens per second: prefill by n_batch, then decode."""
    description = model.describe()
    prompt = [5 + i * 7919 % (model.hp.n_vocab - 5) for i in range(args.prompt_tokens)]
    greedy = InferenceParameters(temperature=0.0, max_tokens=args.generate, ignore_eos=True)
    speeds: dict[int, float] = {}
    decode_speeds: list[float] = []
    for n_batch in args.n_batch:
        config = InferenceSessionConfig(n_batch=n_batch, cache_prompt=False)
        times = []
        for i in range(args.repeat + 1):
            with model.start_session(config) as session:
                start = time.perf_counter()
                session.feed_prompt(prompt)
                times.append(time.perf_counter() - start)
                if n_batch == args.n_batch[-1] and i:
                    start = time.perf_counter()
                    n = sum(1 for _ in session.infer(greedy))
                    decode_speeds.append(n / (time.perf_counter() - start))
            sys.stderr.write(f"n_batch {n_batch}: {'warm-up' if not i else f'{i} of {args.repeat}'}\n")
        speeds[n_batch] = args.prompt_tokens / statistics.median(times[1:])  # the first one warms up
    return {
        "model": name,
        "architecture": description["architecture"],
        "n_params": description["n_params"],
        "placement": description["placement"],
        "n_threads": description["n_threads"],
        "prompt_tokens": args.prompt_tokens,
        "prompt_tokens_per_second": speeds,
        "generated_tokens": args.generate,
        "generated_tokens_per_second": statistics.median(decode_speeds),
    }


def table(report: dict[str, Any]) -> str:
    where = ", ".join(f"{report['placement'].count(d)} on {d}" for d in dict.fromkeys(report["placement"]))
    lines = [
        f"{report['model']}: {report['n_params']} parameters, layers: {where}",
        "",
        "n_batch  prompt tokens/s",
    ]
    lines += [f"{n:7}  {speed:15.1f}" for n, speed in report["prompt_tokens_per_second"].items()]
    lines += ["", f"generation: {report['generated_tokens_per_second']:.1f} tokens/s"]
    return "\n".join(lines) + "\n"


def draw(report: dict[str, Any], path: Path) -> None:
    """Plot prefill speed against n_batch. Raises ConfigError without matplotlib."""
    try:
        importlib.import_module("matplotlib").use("Agg")
        pyplot: Any = importlib.import_module("matplotlib.pyplot")
    except ImportError:
        raise ConfigError("--plot needs matplotlib: pip install 'ggserve[bench]'") from None
    sizes, speeds = zip(*report["prompt_tokens_per_second"].items(), strict=True)
    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    axes.plot(range(len(sizes)), speeds, marker="o")
    for i, speed in enumerate(speeds):
        axes.annotate(f"{speed:.0f}", (i, speed), textcoords="offset points", xytext=(0, 8), ha="center")
    axes.set_xticks(range(len(sizes)), [str(n) for n in sizes])
    axes.set_ylim(0, max(speeds) * 1.15)
    axes.set_xlabel("n_batch")
    axes.set_ylabel("prompt tokens/s")
    axes.set_title(f"{report['model']} on {', '.join(dict.fromkeys(report['placement']))}")
    figure.savefig(path)
    pyplot.close(figure)
