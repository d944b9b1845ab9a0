"""`ggserve convert`: converts a Hugging Face model directory or a pre-GGUF file to a GGUF file."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from engine.convert import peft
from engine.convert.converter import TYPES, convert
from engine.convert.legacy import converter as legacy
from engine.errors import ConfigError
from engine.gguf.output import written_files
from engine.units import format_bytes
from server import logs
from server.cli.command import Parser, add_split_option
from server.cli.console import LoadProgress

EXAMPLES = """\
  ggserve convert Qwen2.5-0.5B-Instruct model.gguf                   f16
  ggserve convert Qwen2.5-0.5B-Instruct model.gguf --type q4_k_m     quantized, a third of the size
  ggserve convert ggml-gpt4all-j.bin model.gguf                      a pre-GGUF file, types unchanged
  ggserve convert my-lora lora.gguf --base Qwen2.5-0.5B-Instruct     a LoRA adapter of PEFT, for --lora
  ggserve serve --model model.gguf"""


def _parser() -> Parser:
    description = (
        "Convert a Hugging Face model (config.json, *.safetensors, tokenizer.json), or a pre-GGUF file\n"
        "(ggml, ggmf, ggjt) of LLaMA, MPT, Falcon, GPT-NeoX, GPT-J, GPT-2 or BLOOM, to a GGUF file; or a\n"
        "LoRA adapter of PEFT (adapter_config.json, adapter_model.safetensors) to a GGUF adapter.\n"
        "Only one tensor is in memory at a time. `ggserve quantize` makes the result smaller."
    )
    parser = Parser("ggserve convert", description, EXAMPLES)
    parser.add_argument(
        "source", metavar="SOURCE", help="Hugging Face model or PEFT directory, or pre-GGUF file"
    )
    parser.add_argument("target", metavar="OUT.gguf", help="the file to write")
    types = f"type of the matrices, or a mixture: {', '.join(TYPES)} (default: f16; of an adapter f32)"
    parser.add_argument("--type", metavar="TYPE", help=types)
    parser.add_argument("--pre", metavar="NAME", help="name of the pre-tokenizer, if it is not recognised")
    parser.add_argument(
        "--architecture", metavar="NAME", help="architecture of a pre-GGUF file, if it is not recognised"
    )
    vocab = "Hugging Face directory with a tokenizer to use in place of that of a pre-GGUF file"
    parser.add_argument("--vocab", metavar="FOLDER", help=vocab)
    setting = "a key missing from a pre-GGUF file, such as context_length=4096; may be repeated"
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=setting)
    base = "directory of an adapter's base model (config.json); default: the one that the adapter names"
    parser.add_argument("--base", metavar="FOLDER", help=base)
    add_split_option(parser)
    parser.add_argument("--force", action="store_true", help="overwrite OUT.gguf if it exists")
    return parser


def _settings(texts: list[str]) -> dict[str, str]:
    """The keys given with --set."""
    keys = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise ConfigError(f"--set {text}: must be KEY=VALUE")
        keys[name] = value
    return keys


def run(arguments: list[str]) -> int:
    args = _parser().parse_args(arguments)
    source = Path(args.source)
    if not source.exists():
        raise ConfigError(
            f"{source} does not exist; expected a Hugging Face model directory or a pre-GGUF file"
        )
    unused = {"type": args.type, "pre": args.pre, "split-max-size": args.split_max_size}
    unused["base"] = args.base
    of_a_file = {"architecture": args.architecture, "vocab": args.vocab, "set": args.set}
    is_adapter = (source / peft.CONFIG).is_file()
    if is_adapter:
        unused = of_a_file | {"pre": args.pre, "split-max-size": args.split_max_size}
    elif source.is_dir():
        unused = of_a_file | {"base": args.base}
    for name, value in unused.items():
        if value:
            kind = "directory" if source.is_dir() else "file (`ggserve quantize` changes its types)"
            kind = "LoRA adapter" if is_adapter else kind
            raise ConfigError(f"--{name} does not apply to a {kind}")
    logs.configure("info", "text")
    with LoadProgress(bar=True, verb="converting") as progress:
        report = partial(progress, source.name)
        if is_adapter:
            kind = args.type or "f32"
            remarks = peft.convert(
                source, args.target, base=args.base, type=kind, force=args.force, progress=report
            )
        elif source.is_dir():
            kind = args.type or "f16"
            remarks = convert(
                source,
                args.target,
                kind,
                pre=args.pre,
                force=args.force,
                split_max_size=args.split_max_size,
                progress=report,
            )
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
    for path in written_files(Path(args.target)):
        print(f"{path}: {format_bytes(path.stat().st_size)}")
    return 0
