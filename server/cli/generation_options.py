"""What the commands that generate text share: sampling and chat template options, and loading the model."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from engine.config import InferenceSessionConfig
from engine.types import InferenceParameters
from server import logs
from server.cli.console import LoadProgress
from server.config.default_sampling import LLAMA_SERVER, default_sampling
from server.config.option_types import samplers
from server.config.settings import Settings

if TYPE_CHECKING:
    from engine.engine import Model

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
    "dry_multiplier": "DRY: subtract this from the logits of tokens that lengthen a repetition; 0: off",
    "dry_base": "DRY: multiply that by this for each further token of the repetition",
    "dry_allowed_length": "DRY: longest repetition, in tokens, without a penalty",
    "dry_penalty_last_n": "DRY: number of recent tokens to look at; 0: off, -1: all",
    "dry_sequence_breakers": "DRY: text that ends a repetition; may be repeated, replaces the defaults: a "
    'line break, ":", a double quote and "*"',
    "top_n_sigma": "keep logits within so many standard deviations of the greatest; 0 and below: off",
    "xtc_probability": "XTC: probability that the most likely tokens are excluded; 0: off",
    "xtc_threshold": "XTC: probability above which only the least likely token remains; above 0.5: off",
    "dynatemp_range": "vary the temperature by up to this, by the entropy of the candidates; 0: off",
    "dynatemp_exponent": "how the entropy maps to the temperature",
    "adaptive_target": "adaptive-p, if --samplers has it: prefer tokens near this probability; below 0: off",
    "adaptive_decay": "adaptive-p: decay of its running average of probabilities; higher: slower",
    "min_keep": "minimum number of candidates that typical_p, top_p, min_p and XTC leave",
    "samplers": "steps that run, in order: names separated by ;, or letters such as edskypmxt",
}
_SINGULAR = {"dry_sequence_breakers": "dry_sequence_breaker"}

# Options of `serve` that these commands have too, and what they mean here. Of `parallel` see `load_model`.
DESCRIPTIONS = {
    "parallel": "sequences of which the KV cache has room for a full context (default: 1)",
}
MORE_OPTIONS = {  # of `serve` alone otherwise
    "context_shift": "when the context is full, drop half of the tokens after the first --n-keep and "
    "continue, instead of ending",
    "chat_template": "file with a Jinja chat template that replaces the one in the model file",
    "reasoning": "whether the model reasons before it answers; auto: the template's default (default: auto)",
    "reasoning_budget": "maximum tokens of reasoning; -1: no limit (default: -1)",
    "chat_template_kwargs": "extra variables for the chat template",
}


def add_sampling_options(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each of SAMPLING. Flags that are not used set no attribute."""
    group = parser.add_argument_group(
        "sampling: How the next token is chosen; a model file may have other defaults"
    )
    for field in msgspec.structs.fields(InferenceParameters):
        if field.name not in SAMPLING:
            continue
        flag = "--" + _SINGULAR.get(field.name, field.name).replace("_", "-")
        flags = [*(["-n"] if field.name == "max_tokens" else []), flag]
        value = LLAMA_SERVER.get(field.name, field.default)
        if field.name == "samplers":
            value = ";".join(field.default)
        default = "" if value in (None, False) or field.name in _SINGULAR else f" (default: {value})"
        kwargs: dict[str, Any] = {
            "dest": field.name,
            "default": argparse.SUPPRESS,
            "help": SAMPLING[field.name] + default,
        }
        if isinstance(field.default, bool):
            kwargs["action"] = "store_true"
        elif field.name == "samplers":
            kwargs |= {"metavar": "NAMES", "type": _samplers}
        elif field.name in _SINGULAR:
            kwargs |= {"metavar": "TEXT", "action": "append"}
        else:
            kwargs |= {"metavar": "N", "type": float if isinstance(field.default, float) else int}
        group.add_argument(*flags, **kwargs)
    group.add_argument(
        *("--n-keep", "--keep"),
        metavar="N",
        type=int,
        default=0,
        help="with --context-shift: number of tokens at the beginning that stay when the context is full, in "
        "addition to a BOS token; -1: all before the generated ones (default: 0)",
    )


def _samplers(text: str) -> tuple[str, ...]:
    try:
        return samplers(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def requested_sampling(arguments: argparse.Namespace) -> dict[str, Any]:
    """The sampling parameters set on the command line."""
    requested = {name: value for name, value in vars(arguments).items() if name in SAMPLING}
    if requested.get("max_tokens") == -1:
        requested["max_tokens"] = None
    if "dry_sequence_breakers" in requested:
        requested["dry_sequence_breakers"] = tuple(requested["dry_sequence_breakers"])
    return requested


def load_model(name: str, path: Path, settings: Settings) -> Model:
    """Load the model for one sequence at a time: without --parallel, its KV cache holds one sequence."""
    from engine.engine import load

    params = settings.model_parameters()
    if "parallel" not in settings.model_fields_set:
        params = dataclasses.replace(params, parallel=1)
    with LoadProgress(bar=True) as progress:
        return load(path, params, progress=lambda f, text: progress(name, f, text))


def session_config(model: Model, settings: Settings, n_keep: int) -> InferenceSessionConfig:
    """The session's configuration. The command line's n_keep does not include the BOS token, as in the
    server.
    """
    if n_keep and not settings.context_shift:
        logs.log.warning("--n-keep has no effect without --context-shift")
    if n_keep >= 0:
        n_keep += int(model.tokenizer.add_bos and model.tokenizer.bos_id is not None)
    return InferenceSessionConfig(n_batch=settings.batch_size, n_keep=n_keep)


def inference_parameters(model: Model, settings: Settings, requested: dict[str, Any]) -> InferenceParameters:
    """The validated parameters. requested: those of the command line; a warning names any without effect."""
    from engine.sampling import parameters as sampling

    values = default_sampling(model.describe(), {**settings.sampling_defaults(), **requested})
    params = InferenceParameters(**values, seed=settings.seed)
    params = sampling.validate(params, model.tokenizer.n_vocab, model.n_ctx)
    for warning in sampling.warnings(params):
        if warning.partition(" ")[0] in requested:
            logs.log.warning("%s", warning)
    return params
