"""`ggserve list`: the models on this machine."""

from __future__ import annotations

import json
import sys

from server.cli.command import Parser
from server.models.catalog import list_models
from server.models.progress import size_text
from server.models.stored import StoredModel

EXAMPLES = """\
  ggserve list                        names for --model, sizes, sources
  ggserve list --json                 for programs, with paths and checksums
  ggserve serve --model ollama:llama3.2:latest"""
SOURCES = {
    "bundled": "bundled",
    "package": "Python index",
    "hub": "Hugging Face cache",
    "ollama": "Ollama",
    "lmstudio": "LM Studio",
}


def run(arguments: list[str]) -> int:
    parser = Parser(
        "ggserve list",
        "List the models on this machine. Those in the Hugging Face cache, in Ollama's store and in\n"
        "LM Studio's folder are served in place.",
        EXAMPLES,
    )
    parser.add_argument("--json", action="store_true", help="print a JSON list instead of a table")
    options = parser.parse_args(arguments)
    models = list_models()
    if options.json:
        rows = [
            {
                "name": model.name,
                "source": model.source,
                "path": str(model.path),
                "size": model.size,
                "sha256": model.digest,
                "modified": model.modified,
            }
            for model in models
        ]
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
    else:
        sys.stdout.write(table(models))
    return 0


def table(models: list[StoredModel]) -> str:
    """The models in aligned columns."""
    cells = [("NAME", "SIZE", "SOURCE")]
    cells += [(_printable(model.name), size_text(model.size), SOURCES[model.source]) for model in models]
    widths = [max(len(line[i]) for line in cells) for i in range(2)]
    return "".join(f"{n:<{widths[0]}}  {size:>{widths[1]}}  {source}\n" for n, size, source in cells)


def _printable(name: str) -> str:
    """The text with U+FFFD for characters that a terminal would interpret or cannot show."""
    return "".join(c if c.isprintable() else "\ufffd" for c in name)
