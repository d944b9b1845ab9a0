"""`ggserve perplexity`: the perplexity of a model on a text, to compare quantizations of a model."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path

from engine.errors import ConfigError
from engine.perplexity import DEFAULT_CONTEXT, Estimate
from server import logs
from server.cli.command import Parser, configure_quiet_logging, single_model
from server.cli.console import LoadProgress
from server.config import sources
from server.config.settings import Settings

EXAMPLES = """\
  ggserve perplexity -f wiki.test.raw                          SmolLM2-135M-Instruct
  ggserve perplexity -m model.gguf -f text.txt --chunks 20     the first 20 chunks only
  ggserve perplexity -m model.gguf -f - --json < text.txt      for programs"""

OPTIONS = (
    "model",
    "context_size",
    "lora",
    "use_gpu",
    "gpu_layers",
    "cpu_moe",
    "n_cpu_moe",
    "override_tensor",
    "device",
    "tensor_split",
    "rpc",
    "threads",
    "no_mmap",
    "mlock",
    "flash_attn",
    "kv_type",
    "batch_size",
    "max_batch_tokens",
    "log_level",
    "log_format",
)
DESCRIPTIONS = {
    "context_size": f"tokens per chunk (default: {DEFAULT_CONTEXT})",
    "batch_size": "tokens computed together (default: 512)",
    "max_batch_tokens": "upper limit of --batch-size, which determines memory (default: 512)",
}


def _parser() -> Parser:
    description = (
        "Measure the perplexity of a model on a text: lower is better, for the same text, tokenizer and\n"
        "context size. The text is split into chunks and the second half of each is scored, as in\n"
        "llama-perplexity. Prints the estimate after each chunk."
    )
    parser = Parser("ggserve perplexity", description, EXAMPLES)
    parser.add_argument(
        "-f", "--file", metavar="TEXT", required=True, help="UTF-8 text; -: read it from stdin"
    )
    parser.add_argument("--chunks", metavar="N", type=int, help="only the first N chunks (default: all)")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    sources.add_options(parser, serve=False, names=OPTIONS, descriptions=DESCRIPTIONS)
    return parser


def run(arguments: list[str]) -> int:
    args = _parser().parse_args(arguments)
    settings = sources.load(sources.from_arguments(args), args.config)
    configure_quiet_logging(settings)
    _, path = single_model(settings, "perplexity")
    if args.chunks is not None and args.chunks < 1:
        raise ConfigError(f"--chunks is {args.chunks}; it must be at least 1")
    return measure(path, settings, read_text(args.file), args)


def read_text(name: str) -> str:
    """The text without its final newline. ConfigError if it is not UTF-8."""
    raw = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    try:
        return raw.decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        where = "stdin" if name == "-" else name
        raise ConfigError(f"{where} is not UTF-8 text: byte {error.start} cannot be decoded") from error


def measure(path: Path, settings: Settings, text: str, args: argparse.Namespace) -> int:
    """Load the model, compute and print. Returns the exit status."""
    from engine import perplexity
    from engine.engine import load

    context_size = settings.context_size or DEFAULT_CONTEXT
    params = dataclasses.replace(
        settings.model_parameters(), context_size=context_size, kv_cells=context_size, parallel=1
    )
    with LoadProgress(bar=True) as progress:
        model = load(path, params, progress=lambda f, text: progress(path.stem, f, text))
    with model:
        if context_size > model.hp.n_ctx_train:
            logs.log.warning(
                "a chunk has %d tokens, but the model was trained with %d; reduce --context-size",
                context_size,
                model.hp.n_ctx_train,
            )
        sys.stderr.write(f"tokenizing {len(text)} characters\n")
        tokens = perplexity.tokenize(model, text)
        available = perplexity.n_chunks(len(tokens), context_size)
        n = min(available, args.chunks or available)
        sys.stderr.write(
            f"{len(tokens)} tokens: {n} of {available} chunks of {context_size}, "
            f"{len(tokens) - available * context_size} tokens left over\n"
        )
        began = time.monotonic()
        estimates: list[Estimate] = []
        for estimate in perplexity.estimates(
            model, tokens, context_size=context_size, n_batch=settings.batch_size, chunks=args.chunks
        ):
            estimates.append(estimate)
            if not args.json:
                sys.stdout.write(f"[{estimate.n_chunks}]{estimate.perplexity:.4f},")
                sys.stdout.flush()
            seconds = time.monotonic() - began
            if args.json or estimate.n_chunks == 1:
                left = seconds / estimate.n_chunks * (n - estimate.n_chunks)
                sys.stderr.write(f"chunk {estimate.n_chunks} of {n}, {_duration(left)} to go\n")
    _report(estimates, args, len(tokens), context_size)
    return 0


def _duration(seconds: float) -> str:
    return f"about {seconds / 60:.0f} minutes" if seconds >= 120 else f"about {seconds:.0f} s"


def _report(estimates: list[Estimate], args: argparse.Namespace, n_tokens: int, context_size: int) -> None:
    last = estimates[-1]
    if not args.json:
        sys.stdout.write(f"\nPPL = {last.perplexity:.4f} +/- {last.error:.5f}\n")
        return
    report = {
        "perplexity": last.perplexity,
        "error": last.error,
        "nll": last.nll,
        "n_tokens": n_tokens,
        "n_chunks": last.n_chunks,
        "n_scored": last.n_scored,
        "context_size": context_size,
        "estimates": [estimate.perplexity for estimate in estimates],
    }
    sys.stdout.write(json.dumps(report) + "\n")
