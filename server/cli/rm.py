"""`ggserve rm`: remove downloaded models."""

from __future__ import annotations

import sys

from server.cli.command import Parser
from server.models.catalog import delete
from server.models.progress import size_text

EXAMPLES = """\
  ggserve rm hf:Qwen/Qwen3-8B-GGUF:Q4_K_M     as `ggserve list` names it
  ggserve rm smollm2-135m-instruct            the default model"""


def run(arguments: list[str]) -> int:
    parser = Parser(
        "ggserve rm",
        "Remove models that were downloaded from the Hub or the Python index. Models of Ollama and\n"
        "LM Studio must be removed there.",
        EXAMPLES,
    )
    parser.add_argument("names", metavar="NAME", nargs="+", help="a name from `ggserve list`")
    options = parser.parse_args(arguments)
    for name in options.names:
        model, freed = delete(name)
        sys.stdout.write(f"removed {model}: {size_text(freed)} freed\n")
    return 0
