"""Compares the results of two runs in one table."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from pathlib import Path

BEGIN, END = "<!-- table -->", "<!-- end of table -->"
_IMAGE = "an image for a text-only model is 400 in ggserve and 500 in llama-server"
_CORS = "ggserve allows only the origins in --cors-origins; llama-server allows all, with credentials"
# Tests that pass on llama-server and are expected to fail on ggserve: prefixes of their names, and why.
DIFFERENT: dict[str, str] = {
    "test_cors_options": _CORS,
    "test_cors_proxy": "a proxy for the tools of llama-server's web page",
    "test_anthropic_tool_result_with_image": _IMAGE,
    "test_anthropic_vision_format_accepted": _IMAGE,
}


@dataclass
class File:
    """One test file: its tests, by where they pass (the peer is llama-server). skipped: on either."""

    both: list[str] = field(default_factory=list)
    peer_only: list[str] = field(default_factory=list)
    ours_only: list[str] = field(default_factory=list)
    neither: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


Comparison = dict[str, File]


def outcomes(path: Path) -> dict[tuple[str, str], bool | None]:
    """(file, test) → passed; None: skipped."""
    collected: dict[tuple[str, str], bool | None] = {}
    for case in ET.parse(path).getroot().iter("testcase"):
        file = case.get("classname", "").rpartition(".")[2]
        passed = case.find("failure") is None and case.find("error") is None
        collected[file, case.get("name", "")] = None if case.find("skipped") is not None else passed
    return collected


def compare(peer: Path, ours: Path) -> Comparison:
    """Tests of both passes."""
    there, here = outcomes(peer), outcomes(ours)
    comparison: Comparison = {}
    for key, passed in here.items():
        if key not in there:
            continue
        other, file = there[key], comparison.setdefault(key[0], File())
        if passed is None or other is None:
            file.skipped.append(key[1])
            continue
        names = {(1, 1): file.both, (1, 0): file.peer_only, (0, 1): file.ours_only, (0, 0): file.neither}
        names[int(other), int(passed)].append(key[1])
    return comparison


def reason(test: str) -> str | None:
    """Why a test is expected to fail on ggserve; None if it is not."""
    return next((why for start, why in DIFFERENT.items() if test.startswith(start)), None)


def failures(comparison: Comparison) -> list[str]:
    """Tests that pass on llama-server and fail on ggserve unexpectedly."""
    return [f"{name}::{test}" for name, f in comparison.items() for test in f.peer_only if not reason(test)]


def table(comparison: Comparison) -> str:
    lines = ["| file | llama-server | ggserve | llama-server only |", "|---|---|---|---|"]
    totals = [0, 0, 0]
    for name, f in sorted(comparison.items()):
        n = len(f.both) + len(f.peer_only) + len(f.ours_only) + len(f.neither)
        if not n:
            continue
        peer, ours = len(f.both) + len(f.peer_only), len(f.both) + len(f.ours_only)
        totals = [a + b for a, b in zip(totals, (n, peer, ours), strict=True)]
        lines.append(f"| {name} | {peer} of {n} | {ours} of {n} | {len(f.peer_only) or 'none'} |")
    only = sum(len(f.peer_only) for f in comparison.values())
    lines.append(f"| all | {totals[1]} of {totals[0]} | {totals[2]} of {totals[0]} | {only or 'none'} |")
    skipped = sum(len(f.skipped) for f in comparison.values())
    if skipped:
        lines += ["", f"{skipped} more were skipped on one server or both: they need a downloaded model."]
    for name, f in sorted(comparison.items()):
        cases: dict[tuple[str, str], int] = {}
        for test in f.peer_only:
            why = reason(test)
            shown = (test.partition("[")[0], why) if why else (test, "**unexpected**")
            cases[shown] = cases.get(shown, 0) + 1
        for (test, why), n in cases.items():
            times = f" ({n} cases)" if n > 1 else ""
            lines += ["", f"- `{name}::{test}`{times} passes on llama-server only: {why}"]
    return "\n".join(lines)


def write(path: Path, comparison: Comparison) -> None:
    """Replace the table in a document."""
    text = path.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n{table(comparison)}\n{END}{after}")
