"""`ggserve info`: what a model file holds, without loading its weights."""

from __future__ import annotations

import argparse
import json
import sys

from server.commands import Parser

EXAMPLES = """\
  ggserve info model.gguf             architecture, sizes, tokenizer, memory
  ggserve info model.gguf --tensors   and every tensor
  ggserve info model.gguf --json      for programs"""


def _tokens(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a number of tokens, not {text!r}")
    return int(text)


def run(arguments: list[str]) -> int:
    parser = Parser("ggserve info", "Show what a GGUF file holds, without loading its weights.", EXAMPLES)
    parser.add_argument("path", metavar="PATH", help="GGUF file")
    parser.add_argument("--tensors", action="store_true", help="also list the tensors")
    parser.add_argument("--tokens", action="store_true", help="also list the vocabulary")
    parser.add_argument("--json", action="store_true", help="a JSON object instead of text")
    parser.add_argument(
        "--context-size", metavar="N", type=_tokens, help="for the estimate of memory; default: as trained"
    )
    parser.add_argument("--kv-type", metavar="TYPE", default="f16", help="for the estimate (default: f16)")
    options = parser.parse_args(arguments)
    from engine.config import KV_TYPES
    from engine.info import describe, render

    if options.kv_type not in KV_TYPES:
        parser.error(f"--kv-type must be one of {', '.join(KV_TYPES)}")
    found = describe(
        options.path,
        tensors=options.tensors,
        tokens=options.tokens,
        context=options.context_size,
        kv_type=options.kv_type,
    )
    text = json.dumps(found, indent=2) if options.json else render(found)
    sys.stdout.write(text.rstrip("\n") + "\n")
    return 0
