"""`ggserve config`: print all options with their effective values, as commented YAML."""

from __future__ import annotations

import sys

from server.cli.command import Parser
from server.config import sources

EXAMPLES = """\
  ggserve config > ggserve.yml                       the defaults, to edit
  ggserve config --config ggserve.yml --port 9000    the effective values of these options"""


def run(arguments: list[str]) -> int:
    parser = Parser(
        "ggserve config", "Print all options with their effective values, as a commented YAML file.", EXAMPLES
    )
    sources.add_options(parser, serve=True)
    args = parser.parse_args(arguments)
    sys.stdout.write(sources.render(sources.load(sources.from_arguments(args), args.config)))
    return 0
