"""`ggserve convert`: a GGUF file of a Hugging Face model folder, or of a file from before GGUF."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from engine.convert.converter import TYPES, convert
from engine.convert.legacy import converter as legacy
from engine.errors import ConfigError
from engine.units import format_bytes
from server import logs
from server.cli.command import Parser
from server.cli.console import LoadProgress

EXAMPLES = """\
  ggserve convert Qwen2.5-0.5B-Instruct model.gguf               f16, as most models are published
  ggserve convert Qwen2.5-0.5B-Instruct model.gguf --type q4_k_m a third of it
  ggserve convert ggml-gpt4all-j.bin model.gguf                  a ggml, ggmf or ggjt file; its types stay
  ggserve serve --model model.gguf"""


def _parser() -> Parser:
    description = (
        "Convert a Hugging Face model (config.json, *.safetensors, tokenizer.json), or a file from before\n"
        "GGUF (ggml, ggmf, ggjt) of LLaMA, MPT, Falcon, GPT-NeoX, GPT-J, GPT-2 or BLOOM, to a GGUF file.\n"
        "One tensor at a time is in memory. `ggserve quantize` makes smaller files of the result."
    )
    parser = Parser("ggserve convert", description, EXAMPLES)
    parser.add_argument("source", metavar="SOURCE", help="the downloaded folder, or the old file")
    parser.add_argument("target", metavar="OUT.gguf", help="the file to write")
    types = f"of matrices, or a mixture of types: {', '.join(TYPES)} (default: f16)"
    parser.add_argument("--type", metavar="TYPE", help=types)
    parser.add_argument("--pre", metavar="NAME", help="the pre-tokenizer's name, where it is not recognised")
    parser.add_argument("--architecture", metavar="NAME", help="of an old file, where it is not recognised")
    vocab = "a Hugging Face folder whose tokenizer an old file gets in place of its own"
    parser.add_argument("--vocab", metavar="FOLDER", help=vocab)
    setting = "a key that an old file does not have, such as context_length=4096 (repeatable)"
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=setting)
    parser.add_argument("--force", action="store_true", help="replace OUT.gguf if it is there")
    return parser


def _settings(args: list[str]) -> dict[str, str]:
    found = {}
    for text in args:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise ConfigError(f"--set {text}: write KEY=VALUE")
        found[name] = value
    return found


def run(arguments: list[str]) -> int:
    args = _parser().parse_args(arguments)
    source = Path(args.source)
    if not source.exists():
        raise ConfigError(f"{source} is not there; convert takes a Hugging Face model folder or an old file")
    unused = {"type": args.type, "pre": args.pre}
    if source.is_dir():
        unused = {"architecture": args.architecture, "vocab": args.vocab, "set": args.set}
    for name, value in unused.items():
        if value:
            what = (
                "a folder"
                if source.is_dir()
                else "a file, whose types stay (`ggserve quantize` changes them)"
            )
            raise ConfigError(f"--{name} has no use for {what}")
    logs.configure("info", "text")
    with LoadProgress(bar=True, verb="converting") as progress:
        report = partial(progress, source.name)
        if source.is_dir():
            kind = args.type or "f16"
            remarks = convert(source, args.target, kind, pre=args.pre, force=args.force, progress=report)
        else:
            remarks = legacy.convert(
                source,
                args.target,
                architecture=args.architecture,
                vocab=args.vocab,
                keys=_settings(args.set),
                force=args.force,
                progress=report,
            )
    for remark in remarks:
        sys.stderr.write(f"note: {remark}\n")
    print(f"{args.target}: {format_bytes(Path(args.target).stat().st_size)}")
    return 0
