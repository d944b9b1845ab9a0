"""What the commands share: the argument parser, and the settings of commands that use a single model."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from engine.errors import ConfigError
from server import logs
from server.cli.console import LoadProgress
from server.cli.pulling import pulling
from server.config import sources
from server.config.settings import Settings
from server.models.errors import DownloadError
from server.models.reference import BUNDLED
from server.models.resolver import resolve


class Parser(argparse.ArgumentParser):
    """Reports an error on one line, with the flag that was probably meant; prints the examples verbatim."""

    def __init__(self, prog: str, description: str, examples: str = "") -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=f"examples:\n{examples}" if examples else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def parse_args(self, args: Sequence[str]) -> argparse.Namespace:  # type: ignore[override]
        known, unknown = self.parse_known_args(args)
        if unknown:
            near = difflib.get_close_matches(unknown[0].split("=")[0], self._option_string_actions, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            self.error(f"unknown argument {unknown[0]}{hint}")
        return known

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"{self.prog}: {message} (see {self.prog} --help)\n")
        raise SystemExit(2)


def add_split_option(parser: argparse.ArgumentParser) -> None:
    """Add --split-max-size, for the commands that write models."""
    text = "write parts of at most this size (2G, 500M), named OUT-00001-of-0000N.gguf"
    parser.add_argument("--split-max-size", type=file_size, default=0, metavar="SIZE", help=text)


def add_model_argument(parser: argparse.ArgumentParser) -> None:
    """Add the positional models, which need no --model; `requested_options` reads them."""
    parser.add_argument("models", nargs="*", metavar="MODEL", help="the same as --model MODEL")


def requested_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options set on the command line, including the models of `add_model_argument`."""
    requested = sources.from_arguments(arguments)
    if arguments.models:
        requested["model"] = [*arguments.models, *requested.get("model", [])]
    return requested


def file_size(text: str) -> int:
    """Bytes from a number with M or G, for 10^6 or 10^9, as in llama-gguf-split."""
    units = {"M": 10**6, "G": 10**9}
    number, unit = (text[:-1], text[-1:].upper()) if text[-1:].upper() in units else ("", "")
    if not number.isdecimal() or not 0 < int(number) < 10**6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 2G or 500M")
    return int(number) * units[unit]


def single_model(settings: Settings, command: str) -> tuple[str, Path]:
    """Name and file of the one model. Raises ConfigError if --model was given several times."""
    n_models = len(settings.sources())
    if n_models != 1:
        raise ConfigError(f"--model was given {n_models} times; {command} takes one")
    (model,) = with_files(settings).models().items()
    return model


def with_files(settings: Settings) -> Settings:
    """The settings with a file for every model; models given by name are downloaded first if necessary.

    Without --model, the bundled model is used if the default model cannot be downloaded.
    """
    files: dict[str, Path] = {}
    with LoadProgress(bar=settings.log_format == "text", verb="downloading") as bar:
        for name, source in settings.sources().items():
            try:
                files[name] = resolve(source, pulling(settings, bar))
            except DownloadError as error:
                if settings.model:
                    raise
                files[BUNDLED] = resolve(BUNDLED)
                logs.log.warning("%s: %s; using the tiny bundled model instead", name, error)
    try:
        return settings.with_files(files)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def configure_quiet_logging(settings: Settings) -> None:
    """Log to stderr for a command whose stdout is its result: only warnings, unless --log-level is set."""
    quiet = settings.log_level == "info" and "log_level" not in settings.model_fields_set
    logs.configure("warning" if quiet else settings.log_level, settings.log_format)
    for advice in sources.unknown_environment():
        logs.log.warning("%s", advice)


def warn_if_public(settings: Settings) -> None:
    """Warn about a server that others can reach without an API key."""
    if not settings.listens_locally:
        text = "anyone who can reach %s can use this server; set --api-key-file to require an API key"
        logs.log.warning(text, settings.host)
