"""Reads options from the command line, the environment and a YAML file into a `Settings`.

Precedence: command line > environment > file > default. Every error is a one-line `ConfigError` that names
the option in the form in which the user wrote it.
"""

from __future__ import annotations

import argparse
import difflib
import os
import textwrap
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, get_origin

from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo

from engine.errors import ConfigError
from server.config.settings import SECTIONS, Settings

CONFIG_VARIABLE = "GGSERVE_CONFIG"
PREFIX = "GGSERVE_"


def _extra(field: FieldInfo) -> dict[str, Any]:
    assert isinstance(field.json_schema_extra, dict)
    return dict(field.json_schema_extra)


def _is_list(field: FieldInfo) -> bool:
    return get_origin(field.annotation) is list


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _variable(name: str) -> str:
    return PREFIX + name.upper()


OLD_NAMES = {
    old: name
    for name, field in Settings.model_fields.items()
    if (old := _extra(field)["old_name"]) is not None
}


OTHER_FLAGS = {  # most are llama-server's names
    "model": ("-m",),
    "draft_model": ("-md", "--model-draft"),
    "draft_gpu_layers": ("-ngld", "--gpu-layers-draft"),
    "spec_draft_n_max": ("--draft-max", "--draft-n", "--draft"),
}


def add_options(
    parser: argparse.ArgumentParser,
    *,
    serve: bool,
    names: Collection[str] | None = None,
    more: Collection[str] = (),
    descriptions: Mapping[str, str] | None = None,
) -> None:
    """Add a flag for each option to `parser`, in groups. Flags that are not used set no attribute.

    serve: all options, not only the shared ones. names: only these. more: these in addition to the shared
    ones. descriptions: what an option means for this command if that differs, including the default.
    """
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        help=f"YAML file with options (see `ggserve config`); default: {CONFIG_VARIABLE} in the environment",
    )
    descriptions = descriptions or {}
    groups: dict[str, Any] = {}
    for name, field in Settings.model_fields.items():
        extra = _extra(field)
        if not (serve or extra["shared"] or name in more) or (names is not None and name not in names):
            continue
        section = extra["section"]
        if section not in groups:
            groups[section] = parser.add_argument_group(f"{section}: {SECTIONS[section]}")
        flags = [*OTHER_FLAGS.get(name, ()), _flag(name)]
        default = field.get_default(call_default_factory=True)
        shown = "" if default in (None, [], {}, False) else f" (default: {default})"
        kwargs: dict[str, Any] = {
            "dest": name,
            "default": argparse.SUPPRESS,
            "metavar": extra["metavar"] or "true|false",
            "help": descriptions.get(name, (field.description or "") + shown).replace("%", "%%"),
        }
        if _is_list(field):
            kwargs["action"] = "append"
        elif name == "use_gpu" or field.annotation is bool:
            kwargs |= {"nargs": "?", "const": "true"}  # a flag without a value means true
        groups[section].add_argument(*flags, **kwargs)
        if name == "model":
            text = "the same as --model hf:OWNER/REPO[:QUANT]"
            groups[section].add_argument(
                *("-hf", "--hf-repo"),
                **{**kwargs, "type": "hf:{}".format, "metavar": "OWNER/REPO[:QUANT]", "help": text},
            )
        if extra["old_name"] is not None:
            groups[section].add_argument(_flag(extra["old_name"]), **{**kwargs, "help": argparse.SUPPRESS})


def from_arguments(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options set on the command line."""
    return {name: value for name, value in vars(arguments).items() if name in Settings.model_fields}


def read_file(path: Path) -> dict[str, Any]:
    """The options in a YAML file, with old names replaced by new ones. A null means the default."""
    from server.config import yaml_file  # which only those need who have such a file

    values = yaml_file.read(path)
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: must contain keys and values, such as `port: 8080`")
    fields = Settings.model_fields
    for old, name in OLD_NAMES.items():
        if old in values and name in values:
            raise ConfigError(f"{path}: {old!r} is an old name of {name!r}; remove one of the two")
    values = {OLD_NAMES.get(key, key): value for key, value in values.items()}
    for key in values:
        if key not in fields:
            near = difflib.get_close_matches(str(key).replace("-", "_").lower(), fields, 1, 0.5)
            hint = f"; did you mean {near[0]!r}?" if near else "; `ggserve config` lists all options"
            raise ConfigError(f"{path}: unknown option {key!r}{hint}")
    return {
        key: [value] if _is_list(fields[key]) and isinstance(value, str | int | float) else value
        for key, value in values.items()
        if value is not None
    }


def load(cli: Mapping[str, Any] | None = None, file: Path | None = None) -> Settings:
    """The effective options: `cli`, then the environment, then `file` (or GGSERVE_CONFIG), then defaults."""
    if file is None and os.environ.get(CONFIG_VARIABLE):
        file = Path(os.environ[CONFIG_VARIABLE])
    from_file = read_file(file) if file is not None else {}
    from_environment = read_environment()
    from_cli = dict(cli or {})
    try:
        return Settings(**{**from_file, **from_environment, **from_cli})
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        message = problem["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
        message = message.partition(", unable to")[0]
        if not problem["loc"]:
            raise ConfigError(message) from error
        name = str(problem["loc"][0])
        if name in from_cli:
            where = _flag(name)
        elif name in from_environment:
            where = _variable(name)
        else:
            where = f"{file}: {name}"
        raise ConfigError(f"{where} {message}") from error


def read_environment() -> dict[str, Any]:
    """The options in GGSERVE_ variables. A new name takes precedence over an old one; empty variables count
    as unset.
    """
    environment = {name.upper(): text for name, text in os.environ.items()}
    values: dict[str, Any] = {
        name: text for name in Settings.model_fields if (text := environment.get(_variable(name)))
    }
    for old, name in OLD_NAMES.items():
        text = os.environ.get(_variable(old))
        if text:
            values.setdefault(name, text)
    return values


def unknown_environment() -> list[str]:
    """Warnings about GGSERVE_ variables that look like misspelt options (others belong to the build)."""
    known = {_variable(name) for name in [*Settings.model_fields, *OLD_NAMES]} | {CONFIG_VARIABLE}
    advice = []
    for name in os.environ:
        if name.startswith(PREFIX) and name not in known:
            near = difflib.get_close_matches(name, known, 1, 0.85)
            if near:
                advice.append(f"{name} in the environment has no effect; did you mean {near[0]}?")
    return advice


def render(settings: Settings) -> str:
    """`settings` as a commented YAML file that can be read back, without API keys."""
    from server.config import yaml_file

    lines = [
        "# Options of ggserve: `ggserve serve --config FILE`.",
        "# Every option is also a flag (--max-queue) and an environment variable (GGSERVE_MAX_QUEUE).",
        "# Precedence: command line > environment > this file > default. null means the default.",
    ]
    for section, title in SECTIONS.items():
        lines += ["", f"# --- {section}: {title}"]
        for name, field in Settings.model_fields.items():
            if _extra(field)["section"] != section:
                continue
            value = getattr(settings, name)
            text = textwrap.wrap(field.description or "", 100, break_long_words=False, break_on_hyphens=False)
            lines += ["", *(f"# {line}" for line in text)]
            if isinstance(value, list) and any(isinstance(x, SecretStr) for x in value):
                lines.append(f"# {name}: {len(value)} set, not shown")
            else:
                lines.append(yaml_file.line(name, value))
    return "\n".join(lines) + "\n"
