"""`ggserve infer`: one completion, in this process, streamed to the terminal."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from engine.config import InferenceSessionConfig
from engine.errors import ConfigError
from engine.types import InferenceParameters
from server import logs
from server.cli.command import Parser
from server.cli.console import LoadProgress
from server.config import sources
from server.config.settings import Settings

EXAMPLES = """\
  ggserve infer -p "Once upon a time"                       the bundled model
  ggserve infer -m model.gguf -p "2 + 2 =" -n 8 --stats     speed on stderr
  ggserve infer -m model.gguf -p - --temperature 0 < text   prompt from stdin, most likely tokens"""

SAMPLING = {
    "max_tokens": "tokens to generate at most; default: until the model ends or its context is full",
    "min_tokens": "do not let the model end before that many",
    "ignore_eos": "never let the model end",
    "temperature": "0: always the most likely token; higher: more surprising",
    "top_k": "only the K most likely tokens; 0: all",
    "top_p": "only the most likely tokens that together have this probability",
    "min_p": "only tokens at least so likely, relative to the most likely",
    "typical_p": "locally typical sampling; 1: off",
    "tfs_z": "tail-free sampling; 1: off",
    "top_a": "only tokens above this times the square of the largest probability; 0: off",
    "mirostat": "1 or 2: hold the surprise steady instead of cutting the tail",
    "mirostat_tau": "the surprise that mirostat aims at",
    "mirostat_eta": "how fast it learns",
    "repeat_penalty": "make tokens of the window less likely; 1: off",
    "frequency_penalty": "the same, by how often they came",
    "presence_penalty": "the same, if they came at all",
    "repeat_last_n": "that window: 0 none, -1 everything",
}


def _parser() -> Parser:
    description = "Stream one completion to stdout. Ctrl-C ends it."
    parser = Parser("ggserve infer", description, EXAMPLES)
    parser.add_argument(
        "-p", "--prompt", metavar="TEXT", required=True, help="what to continue; -: from stdin"
    )
    parser.add_argument("--special", action="store_true", help="read control tokens in the prompt as such")
    parser.add_argument(
        "--stop", metavar="TEXT", action="append", default=[], help="end before this text; may be repeated"
    )
    parser.add_argument("--stats", action="store_true", help="print tokens and times to stderr")
    group = parser.add_argument_group("sampling: How the next token is chosen")
    for field in msgspec.structs.fields(InferenceParameters):
        if field.name not in SAMPLING:
            continue
        flags = [*(["-n"] if field.name == "max_tokens" else []), "--" + field.name.replace("_", "-")]
        default = "" if field.default in (None, False) else f" (default: {field.default})"
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
    # stdout is the answer: what is said about it comes on stderr, and only if it matters.
    quiet = settings.log_level == "info" and "log_level" not in settings.model_fields_set
    logs.configure("warning" if quiet else settings.log_level, settings.log_format)
    for advice in sources.unknown_environment():
        logs.log.warning("%s", advice)
    models = settings.models()
    if len(models) != 1:
        raise ConfigError(f"--model was given {len(models)} times; infer takes one")
    prompt = sys.stdin.read().removesuffix("\n") if args.prompt == "-" else args.prompt
    chosen = {name: value for name, value in vars(args).items() if name in SAMPLING}
    params = InferenceParameters(**chosen, seed=settings.seed)
    (path,) = models.values()
    return complete(path, settings, prompt, params, args)


def complete(
    path: Path, settings: Settings, prompt: str, params: InferenceParameters, args: argparse.Namespace
) -> int:
    """Load, feed, print; the exit status."""
    from engine.engine import load
    from engine.sampling import parameters as sampling
    from engine.tokenizer.detokenizer import StopMatcher

    model_params = settings.model_parameters()
    if "parallel" not in settings.model_fields_set:
        model_params = dataclasses.replace(model_params, parallel=1)  # no memory for others
    started = time.monotonic()
    with LoadProgress(bar=True) as progress:
        model = load(path, model_params, progress=lambda f, text: progress(path.stem, f, text))
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    with model, model.start_session(InferenceSessionConfig(n_batch=settings.batch_size)) as session:
        params = sampling.validate(params, model.tokenizer.n_vocab, model.n_ctx)
        for warning in sampling.warnings(params):
            logs.log.warning("%s", warning)
        stats = Stats(time.monotonic() - started)
        interrupted = False
        stop = StopMatcher(args.stop)
        try:
            session.feed_prompt(prompt, parse_special=args.special)
            stats.prompt(len(session.tokens))
            found = None
            for token in session.infer(params):
                stats.token()
                text, found = stop.push(token.text)
                sys.stdout.write(text)
                sys.stdout.flush()
                if found is not None:
                    break
            if found is None:
                sys.stdout.write(stop.flush())
        except KeyboardInterrupt:
            interrupted = True
        sys.stdout.write("\n")
        sys.stdout.flush()
        if args.stats:
            sys.stderr.write(stats.render(session.n_batch))
        return 130 if interrupted else 0


class Stats:
    """Counts and times of one completion."""

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
