"""`ggserve devices`: the devices that ggml can compute on."""

from __future__ import annotations

import json
import sys
from typing import Any

from server.cli.command import Parser

EXAMPLES = """\
  ggserve devices          a table
  ggserve devices --json   for programs"""


def run(arguments: list[str]) -> int:
    parser = Parser("ggserve devices", "List the devices that models can run on, best first.", EXAMPLES)
    parser.add_argument("--json", action="store_true", help="a JSON list instead of a table")
    options = parser.parse_args(arguments)
    from engine.ggml.backend import devices
    from engine.graph.ops.packed import instruction_set

    rows = [
        {
            "name": device.name,
            "backend": device.backend,
            "type": device.type,
            "description": device.description,
            "free": device.free,
            "total": device.total,
            # the instruction set of our own kernels, which run on the CPU only
            "kernels": instruction_set() if device.type == "cpu" else None,
        }
        for device in devices()
    ]
    sys.stdout.write(json.dumps(rows, indent=2) + "\n" if options.json else table(rows))
    return 0


def table(rows: list[dict[str, Any]]) -> str:
    """The devices in aligned columns, with sizes in GiB."""
    cells = [["NAME", "BACKEND", "TYPE", "FREE", "TOTAL", "DESCRIPTION"]]
    for row in rows:
        free, total = (f"{row[key] / 2**30:.1f} GiB" for key in ("free", "total"))
        kernels = f" (kernels: {row['kernels']})" if row["kernels"] else ""
        cells.append([row["name"], row["backend"], row["type"], free, total, row["description"] + kernels])
    widths = [max(len(line[i]) for line in cells) for i in range(5)]
    lines = ("  ".join([*map(str.ljust, line, widths), line[5]]).rstrip() for line in cells)
    return "\n".join(lines) + "\n"
