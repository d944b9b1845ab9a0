"""Options as a command, a variable or a file has them."""

from __future__ import annotations

import argparse
from pathlib import Path

from server.config import sources as options
from server.config.settings import Settings


def parse(*arguments: str, serve: bool = True) -> Settings:
    """What `ggserve serve` makes of its arguments; several in one string are divided at spaces."""
    parser = argparse.ArgumentParser(allow_abbrev=False, exit_on_error=False)
    options.add_options(parser, serve=serve)
    namespace = parser.parse_args([word for text in arguments for word in (text.split() or [text])])
    return options.load(options.from_arguments(namespace), namespace.config)


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "options.yml"
    path.write_text(text, encoding="utf-8")
    return path
