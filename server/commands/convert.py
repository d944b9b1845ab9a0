"""`ggserve convert`: a GGUF file of a Hugging Face model folder."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from engine.convert import TYPES, convert
from engine.errors import ConfigError
from engine.plan import human
from server import logs
from server.commands import Parser
from server.console import LoadProgress

EXAMPLES = """\
  ggserve convert Qwen2.5-0.5B-Instruct model.gguf               f16, as most models are published
  ggserve convert Qwen2.5-0.5B-Instruct model.gguf --type q8_0   half of it
  ggserve serve --model model.gguf"""


def _parser() -> Parser:
    description = (
        "Convert a Hugging Face model (config.json, *.safetensors, tokenizer.json) to a GGUF file.\n"
        "One tensor at a time is in memory. `ggserve quantize` makes smaller files of the result."
    )
    parser = Parser("ggserve convert", description, EXAMPLES)
    parser.add_argument("source", metavar="HF_FOLDER", help="the downloaded model")
    parser.add_argument("target", metavar="OUT.gguf", help="the file to write")
    types = f"of matrices: {', '.join(TYPES)} (default: f16)"
    parser.add_argument("--type", default="f16", metavar="TYPE", help=types)
    parser.add_argument("--pre", metavar="NAME", help="the pre-tokenizer's name, where it is not recognised")
    parser.add_argument("--force", action="store_true", help="replace OUT.gguf if it is there")
    return parser


def run(arguments: list[str]) -> int:
    given = _parser().parse_args(arguments)
    if not Path(given.source).is_dir():
        raise ConfigError(f"{given.source} is not a folder; convert takes a Hugging Face model folder")
    logs.configure("info", "text")
    with LoadProgress(bar=True, verb="converting") as progress:
        remarks = convert(
            given.source,
            given.target,
            given.type,
            pre=given.pre,
            force=given.force,
            progress=partial(progress, Path(given.source).name),
        )
    for remark in remarks:
        sys.stderr.write(f"note: {remark}\n")
    print(f"{given.target}: {human(Path(given.target).stat().st_size)}")
    return 0
