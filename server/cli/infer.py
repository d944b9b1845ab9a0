"""`ggserve infer`: one completion without a server, streamed to the terminal."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from engine.units import format_bytes
from server.cli.command import (
    Parser,
    add_model_argument,
    configure_quiet_logging,
    requested_options,
    single_model,
)
from server.cli.generation_options import (
    DESCRIPTIONS,
    MORE_OPTIONS,
    add_sampling_options,
    inference_parameters,
    load_model,
    requested_sampling,
    session_config,
)
from server.config import sources
from server.config.settings import Settings

if TYPE_CHECKING:
    from engine.config import InferenceSessionConfig
    from engine.engine import Model
    from engine.session import InferenceSession

EXAMPLES = """\
  ggserve infer -p "Once upon a time"                       SmolLM2-135M-Instruct
  ggserve infer -m model.gguf -p "2 + 2 =" -n 8 --stats     with speed on stderr
  ggserve infer -m model.gguf -p - --temperature 0 < text   prompt from stdin, greedy decoding
  ggserve infer --chat -p "What is a llama?"                an answer through the model's chat template
  ggserve infer -p "Once" -n 50 --save-session tale         and then, from where it ended:
  ggserve infer -p " But" -n 50 --load-session tale"""


def _parser() -> Parser:
    description = (
        "Continue a text, or with --chat answer it, and stream the result to stdout. Ctrl-C stops it."
    )
    parser = Parser("ggserve infer", description, EXAMPLES)
    add_model_argument(parser)
    parser.add_argument(
        *("-p", "--prompt"),
        metavar="TEXT",
        help="text to continue; -: read it from stdin. Without -p on a terminal, infer is `ggserve chat`",
    )
    parser.add_argument(
        "--chat",
        action="store_true",
        help="answer the text through the model's chat template instead of continuing it",
    )
    parser.add_argument("--special", action="store_true", help="parse special tokens in the prompt")
    parser.add_argument(
        "--stop", metavar="TEXT", action="append", default=[], help="end before this text; may be repeated"
    )
    parser.add_argument(
        "--save-session", metavar="FILE", type=Path, help="save the tokens and the KV cache to this file"
    )
    parser.add_argument(
        "--load-session", metavar="FILE", type=Path, help="continue from a file that --save-session wrote"
    )
    parser.add_argument("--stats", action="store_true", help="print token counts and times to stderr")
    add_sampling_options(parser)
    sources.add_options(parser, serve=False, more=MORE_OPTIONS, descriptions=DESCRIPTIONS | MORE_OPTIONS)
    return parser


def run(arguments: list[str]) -> int:
    parser = _parser()
    args = parser.parse_args(arguments)
    if args.prompt is None and args.load_session is None:
        if not sys.stdin.isatty():
            parser.error("a text is required: -p TEXT, or -p - to read it from stdin")
        from server.cli import chat

        return chat.run([word for word in arguments if word != "--chat"])
    settings = sources.load(requested_options(args), args.config)
    configure_quiet_logging(settings)
    prompt = sys.stdin.read().removesuffix("\n") if args.prompt == "-" else args.prompt or ""
    if not args.chat:
        name, path = single_model(settings, "infer")
        began = time.monotonic()
        with load_model(name, path, settings) as model:
            return complete(model, settings, prompt, args, time.monotonic() - began)
    for name in ("special", "stop", "stats", "save_session", "load_session"):
        if getattr(args, name):
            parser.error(f"--{name.replace('_', '-')} cannot be combined with --chat")
    from server.cli import chat

    return chat.answer_with_model(settings, prompt, args)


def complete(model: Model, settings: Settings, prompt: str, args: argparse.Namespace, load_s: float) -> int:
    """Generate and print. Returns the exit status. load_s: how long loading the model took."""
    from engine.tokenizer.detokenizer import StopMatcher

    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    params = inference_parameters(model, settings, requested_sampling(args))
    with _session(model, session_config(model, settings, args.n_keep), args.load_session) as session:
        if sys.stderr.isatty() and model.tokenizer.chat_template and not args.special:
            sys.stderr.write(
                "hint: this model is made for chat: --chat answers the text, `ggserve chat` talks\n"
            )
        stats = Stats(load_s)
        interrupted = False
        stop = StopMatcher(args.stop)
        n_before = len(session.tokens)
        try:
            session.feed_prompt(prompt, parse_special=args.special)
            stats.prompt(len(session.tokens) - n_before)
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
        if args.save_session is not None:
            _save(session, model, args.save_session)
        if args.stats:
            sys.stderr.write(stats.render(session.n_batch))
        return 130 if interrupted else 0


def _session(model: Model, config: InferenceSessionConfig, path: Path | None) -> InferenceSession:
    return model.start_session(config) if path is None else model.restore_session(path, config)


def _save(session: InferenceSession, model: Model, path: Path) -> None:
    if session.tokens[-1:] and session.tokens[-1] in model.eog_ids:
        session.rewind(1)  # the text goes on here
    size = session.save(path)
    sys.stderr.write(f"saved {len(session.tokens)} tokens in {path} ({format_bytes(size)})\n")


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
