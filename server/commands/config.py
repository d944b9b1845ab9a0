"""`ggserve config`: the effective options as commented YAML."""

from __future__ import annotations

import sys

from server import options
from server.commands import Parser

EXAMPLES = """\
  ggserve config > ggserve.yml                       all defaults, to edit
  ggserve config --config ggserve.yml --port 9000    what these would come to"""


def run(arguments: list[str]) -> int:
    parser = Parser("ggserve config", "Print the effective options as a commented YAML file.", EXAMPLES)
    options.add_options(parser, serve=True)
    given = parser.parse_args(arguments)
    sys.stdout.write(options.render(options.load(options.given(given), given.config)))
    return 0
