"""`ggserve quantize`: quantizes the matrices of a model file."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path

from engine.errors import ConfigError
from engine.quantize.quantizer import Change, quantize_file, type_names
from engine.units import format_bytes
from server import logs
from server.cli.command import Parser, add_split_option
from server.cli.console import LoadProgress

EXAMPLES = """\
  ggserve quantize model-f16.gguf model.gguf Q4_K_M           the usual choice: a quarter of the size
  ggserve quantize model-f16.gguf model.gguf Q8_0             half the size, nearly no loss of quality
  ggserve quantize model-f16.gguf model.gguf IQ2_XS --imatrix imatrix.gguf"""


def _parser() -> Parser:
    description = (
        "Quantize the matrices of a model, with the type names and mixtures of llama-quantize.\n"
        f"Types: {', '.join(type_names())}.\n"
        "docs/quantize.md explains which to choose."
    )
    parser = Parser("ggserve quantize", description, EXAMPLES)
    parser.add_argument("source", metavar="IN.gguf", help="a model in f32, f16 or bf16")
    parser.add_argument("target", metavar="OUT.gguf", help="the file to write")
    parser.add_argument("type", metavar="TYPE", help="one of the types above")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: physical cores)")
    parser.add_argument("--imatrix", metavar="FILE", help="importance matrix written by llama-imatrix (GGUF)")
    parser.add_argument("--keep-output-type", action="store_true", help="do not quantize output.weight")
    parser.add_argument("--output-tensor-type", metavar="T", help="type of output.weight (q8_0, f16, …)")
    parser.add_argument("--token-embedding-type", metavar="T", help="type of token_embd.weight")
    parser.add_argument("--pure", action="store_true", help="use the same type for all matrices")
    parser.add_argument(
        "--allow-requantize", action="store_true", help="accept a source that is already quantized"
    )
    add_split_option(parser)
    parser.add_argument("--force", action="store_true", help="overwrite OUT.gguf if it exists")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    return parser


def run(arguments: list[str]) -> int:
    args = _parser().parse_args(arguments)
    if args.threads is not None and not 1 <= args.threads <= 1024:
        raise ConfigError(f"--threads is {args.threads}; it must be 1 to 1024")
    logs.configure("info", "text")
    with LoadProgress(bar=True, verb="quantizing") as progress:
        changes = quantize_file(
            args.source,
            args.target,
            args.type,
            threads=args.threads,
            imatrix=args.imatrix,
            keep_output=args.keep_output_type,
            output_type=args.output_tensor_type,
            embedding_type=args.token_embedding_type,
            pure=args.pure,
            requantize=args.allow_requantize,
            force=args.force,
            split_max_size=args.split_max_size,
            progress=partial(progress, Path(args.source).name),
        )
    print(json.dumps(summary(changes)) if args.json else table(changes))
    return 0


def summary(changes: list[Change]) -> dict[str, object]:
    """The result for --json."""
    return {
        "bytes_before": sum(c.bytes_before for c in changes),
        "bytes_after": sum(c.bytes_after for c in changes),
        "tensors": [dataclasses.asdict(c) for c in changes],
    }


def table(changes: list[Change]) -> str:
    """Sizes by pair of types, and the total."""
    groups: dict[tuple[str, str], list[Change]] = {}
    for c in changes:
        groups.setdefault((c.before, c.after), []).append(c)
    lines = [f"{'before':8}{'after':8}{'tensors':>8}{'bytes before':>16}{'after':>14}{'bits each':>11}"]
    ordered = sorted(groups.items(), key=lambda item: -sum(c.bytes_after for c in item[1]))
    for (before, after), items in [*ordered, (("all", ""), changes)]:
        size = [sum(c.bytes_before for c in items), sum(c.bytes_after for c in items)]
        n = sum(_elements(c) for c in items)
        lines.append(
            f"{before:8}{after:8}{len(items):>8}{format_bytes(size[0]):>16}{format_bytes(size[1]):>14}"
            f"{8 * size[1] / n:>11.2f}"
        )
    return "\n".join(lines)


def _elements(c: Change) -> int:
    n = 1
    for d in c.shape:
        n *= d
    return n
