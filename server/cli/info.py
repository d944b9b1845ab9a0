"""`ggserve info`: the contents of a model file, without loading its weights."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from server.cli.command import Parser
from server.config import sources

if TYPE_CHECKING:
    from engine.model.placement_types import Plan

EXAMPLES = """\
  ggserve info model.gguf             architecture, sizes, tokenizer, memory estimate
  ggserve info model.gguf --tensors   also every tensor
  ggserve info model.gguf --plan      whether it fits, and where each layer would go
  ggserve info model.gguf --plan --gpu-layers 20 --context-size 8192
  ggserve info model.gguf --json      for programs"""
PLAN_OPTIONS = (
    *("use_gpu", "gpu_layers", "cpu_moe", "n_cpu_moe", "override_tensor", "device", "tensor_split", "rpc"),
    *("kv_cells", "parallel", "max_batch_tokens", "no_mmap", "flash_attn"),
    *("draft_model", "draft_gpu_layers"),
)


def _tokens(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a number of tokens, not {text!r}")
    return int(text)


def run(arguments: list[str]) -> int:
    parser = Parser(
        "ggserve info", "Show the contents of a GGUF file, without loading its weights.", EXAMPLES
    )
    parser.add_argument("path", metavar="PATH", help="GGUF file")
    parser.add_argument("--tensors", action="store_true", help="also list the tensors")
    parser.add_argument("--tokens", action="store_true", help="also list the vocabulary")
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of text")
    parser.add_argument(
        "--context-size",
        metavar="N",
        type=_tokens,
        help="context length for the memory estimate (default: as trained)",
    )
    parser.add_argument(
        "--kv-type",
        metavar="TYPE",
        default="f16",
        help="KV cache type for the memory estimate (default: f16)",
    )
    plan = "print on which device of this machine each layer would be placed, without loading anything"
    parser.add_argument("--plan", action="store_true", help=plan)
    sources.add_options(parser, serve=True, names=PLAN_OPTIONS)
    options = parser.parse_args(arguments)
    from engine.config import KV_TYPES
    from engine.model.info import describe, render

    if options.kv_type not in KV_TYPES:
        parser.error(f"--kv-type must be one of {', '.join(KV_TYPES)}")
    if options.plan:
        return _plan(options)
    for name in PLAN_OPTIONS:
        if hasattr(options, name):
            parser.error(f"--{name.replace('_', '-')} requires --plan")
    description = describe(
        options.path,
        tensors=options.tensors,
        tokens=options.tokens,
        context=options.context_size,
        kv_type=options.kv_type,
    )
    text = json.dumps(description, indent=2) if options.json else render(description)
    sys.stdout.write(text.rstrip("\n") + "\n")
    return 0


def _plan(options: argparse.Namespace) -> int:
    """Print the placement, or what does not fit; exit status 1 if the model would not load."""
    from engine.errors import OutOfMemoryError
    from engine.model.preparation import preview

    options_set = {name: getattr(options, name) for name in PLAN_OPTIONS if hasattr(options, name)}
    options_set |= {"kv_type": options.kv_type}
    if options.context_size is not None:
        options_set["context_size"] = options.context_size
    settings = sources.load(options_set, options.config)
    try:
        plan = preview(options.path, settings.model_parameters())
    except OutOfMemoryError as error:
        if options.json:
            sys.stdout.write(json.dumps({"fits": False, "problem": str(error)}, indent=2) + "\n")
        else:
            sys.stdout.write("\n".join(getattr(error, "__notes__", [])) + "\n")
            sys.stderr.write(f"ggserve: {error}\n")
        return 1
    if not options.json:
        sys.stdout.write(plan.table() + "\n")
        return 0
    report = {"fits": True, **_report(plan)}
    if plan.draft is not None:
        report["draft_model"] = _report(plan.draft)
    sys.stdout.write(json.dumps(report, indent=2) + "\n")
    return 0


def _report(plan: Plan) -> dict[str, Any]:
    return {
        "gpu_layers": plan.gpu_layers,
        "cpu_experts": plan.cpu_experts,
        "layers": list(plan.layers),
        "kv_cells": plan.n_cells,
        "devices": {
            u.device.name: {
                "backend": u.device.backend,
                "weights": u.weights,
                "mapped": u.mapped,
                "cache": u.kv,
                "compute": u.compute,
                "needed": u.needed,
                "free": u.device.free,
            }
            for u in plan.usage
        },
        "notes": list(plan.notes),
    }
