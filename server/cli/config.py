"""`ggserve config`: the effective options as commented YAML."""

from __future__ import annotations

import sys

from server.cli.command import Parser
from server.config import sources

EXAMPLES = """\
  ggserve config > ggserve.yml                       all defaults, to edit
  ggserve config --config ggserve.yml --port 9000    what these would come to"""


def run(arguments: list[str]) -> int:
    parser = Parser("ggserve config", "Print the effective options as a commented YAML file.", EXAMPLES)
    sources.add_options(parser, serve=True)
    args = parser.parse_args(arguments)
    sys.stdout.write(sources.render(sources.load(sources.from_arguments(args), args.config)))
    return 0
