"""`ggserve infer`: one completion without a server, streamed to the terminal."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from engine.config import InferenceSessionConfig
from engine.types import InferenceParameters
from server import logs
from server.cli.command import Parser, configure_quiet_logging, single_model
from server.cli.console import LoadProgress
from server.config import sources
from server.config.default_sampling import LLAMA_SERVER, default_sampling
from server.config.settings import Settings

EXAMPLES = """\
  ggserve infer -p "Once upon a time"                       SmolLM2-135M-Instruct
  ggserve infer -m model.gguf -p "2 + 2 =" -n 8 --stats     with speed on stderr
  ggserve infer -m model.gguf -p - --temperature 0 < text   prompt from stdin, greedy decoding"""

SAMPLING = {
    "max_tokens": "maximum tokens to generate; default and -1: until the model ends or the context is full",
    "min_tokens": "minimum tokens to generate before the model may end",
    "ignore_eos": "never end at an end-of-generation token",
    "temperature": "0: greedy decoding; higher: more random",
    "top_k": "sample from the N most likely tokens; 0: all",
    "top_p": "sample from the most likely tokens whose probabilities sum to this (nucleus sampling); 1: off",
    "min_p": "minimum probability of a token relative to the most likely one; 0: off",
    "typical_p": "locally typical sampling; 1: off",
    "tfs_z": "tail-free sampling; 1: off",
    "top_a": "minimum probability of a token: this times the square of the largest one; 0: off",
    "mirostat": "version of mirostat, which controls perplexity in place of truncation: 1 or 2; 0: off",
    "mirostat_tau": "target surprise of mirostat",
    "mirostat_eta": "learning rate of mirostat",
    "repeat_penalty": "divide the logits of recent tokens by this; 1: off",
    "frequency_penalty": "subtract this from the logits of recent tokens per occurrence; 0: off",
    "presence_penalty": "subtract this from the logits of recent tokens; 0: off",
    "repeat_last_n": "number of recent tokens for the three penalties; 0: off, -1: all",
}


def _parser() -> Parser:
    description = "Generate one completion and stream it to stdout. Ctrl-C ends it."
    parser = Parser("ggserve infer", description, EXAMPLES)
    parser.add_argument(
        "-p", "--prompt", metavar="TEXT", required=True, help="text to continue; -: read it from stdin"
    )
    parser.add_argument("--special", action="store_true", help="parse special tokens in the prompt")
    parser.add_argument(
        "--stop", metavar="TEXT", action="append", default=[], help="end before this text; may be repeated"
    )
    parser.add_argument("--stats", action="store_true", help="print token counts and times to stderr")
    group = parser.add_argument_group(
        "sampling: How the next token is chosen; a model file may have other defaults"
    )
    for field in msgspec.structs.fields(InferenceParameters):
        if field.name not in SAMPLING:
            continue
        flags = [*(["-n"] if field.name == "max_tokens" else []), "--" + field.name.replace("_", "-")]
        value = LLAMA_SERVER.get(field.name, field.default)
        default = "" if value in (None, False) else f" (default: {value})"
        kwargs: dict[str, Any] = {
            "dest": field.name,
            "default": argparse.SUPPRESS,
            "help": SAMPLING[field.name] + default,
        }
        if isinstance(field.default, bool):
            kwargs["action"] = "store_true"
        else:
            kwargs |= {"metavar": "N", "type": float if isinstance(field.default, float) else int}
        group.add_argument(*flags, **kwargs)
    sources.add_options(parser, serve=False)
    return parser


def run(arguments: list[str]) -> int:
    args = _parser().parse_args(arguments)
    settings = sources.load(sources.from_arguments(args), args.config)
    configure_quiet_logging(settings)
    _, path = single_model(settings, "infer")
    prompt = sys.stdin.read().removesuffix("\n") if args.prompt == "-" else args.prompt
    requested = {name: value for name, value in vars(args).items() if name in SAMPLING}
    if requested.get("max_tokens") == -1:
        requested["max_tokens"] = None
    return complete(path, settings, prompt, requested, args)


def complete(
    path: Path, settings: Settings, prompt: str, requested: dict[str, Any], args: argparse.Namespace
) -> int:
    """Load the model, generate, print; the exit status. chosen: sampling parameters of the command line."""
    from engine.engine import load
    from engine.sampling import parameters as sampling
    from engine.tokenizer.detokenizer import StopMatcher

    model_params = settings.model_parameters()
    if "parallel" not in settings.model_fields_set:
        model_params = dataclasses.replace(model_params, parallel=1)  # the KV cache of one request is enough
    started = time.monotonic()
    with LoadProgress(bar=True) as progress:
        model = load(path, model_params, progress=lambda f, text: progress(path.stem, f, text))
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    with model, model.start_session(InferenceSessionConfig(n_batch=settings.batch_size)) as session:
        params = InferenceParameters(**default_sampling(model.describe(), requested), seed=settings.seed)
        params = sampling.validate(params, model.tokenizer.n_vocab, model.n_ctx)
        for warning in sampling.warnings(params):
            if warning.partition(" ")[0] in requested:
                logs.log.warning("%s", warning)
        stats = Stats(time.monotonic() - started)
        interrupted = False
        stop = StopMatcher(args.stop)
        try:
            session.feed_prompt(prompt, parse_special=args.special)
            stats.prompt(len(session.tokens))
            stop_text = None
            for token in session.infer(params):
                stats.token()
                text, stop_text = stop.push(token.text)
                sys.stdout.write(text)
                sys.stdout.flush()
                if stop_text is not None:
                    break
            if stop_text is None:
                sys.stdout.write(stop.flush())
        except KeyboardInterrupt:
            interrupted = True
        sys.stdout.write("\n")
        sys.stdout.flush()
        if args.stats:
            sys.stderr.write(stats.render(session.n_batch))
        return 130 if interrupted else 0


class Stats:
    """Token counts and times of one completion."""

    def __init__(self, load_s: float) -> None:
        self.load_s = load_s
        self.began = self.fed = self.last = time.monotonic()
        self.n_prompt = self.n_generated = 0

    def prompt(self, n: int) -> None:
        self.n_prompt, self.fed = n, time.monotonic()
        self.last = self.fed

    def token(self) -> None:
        self.n_generated += 1
        self.last = time.monotonic()

    def render(self, n_batch: int) -> str:
        lines = [f"load       {self.load_s * 1000:9.1f} ms"]
        for name, n, seconds in (
            ("prompt", self.n_prompt, self.fed - self.began),
            ("generated", self.n_generated, self.last - self.fed),
        ):
            speed = f" {n / seconds:9.1f} tokens/s" if seconds > 0 else ""
            lines.append(f"{name:<10} {seconds * 1000:9.1f} ms {n:6d} tokens{speed}")
        return "\n".join(lines) + f"  (n_batch {n_batch})\n"
