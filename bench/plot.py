"""Draws a report of bench/run.py: one panel per model, a bar per row, servers side by side."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

COLOURS = ("#2a6fbb", "#c0c4cc", "#8a6fbb")


def _label(row: dict[str, Any]) -> str:
    return row["title"] + ("" if row["more_is_better"] else "\n(less is better)")


def _value(x: float, unit: str) -> str:
    return f"{x:.0f} {unit}" if x >= 100 else f"{x:.3g} {unit}"


def draw(report: dict[str, Any], path: Path) -> Path:
    """Bars relative to the last server (the peer), labelled with the absolute figures."""
    results = report["results"]
    figure, axes = plt.subplots(1, len(results), figsize=(7 * len(results), 4.5), squeeze=False)
    for ax, result in zip(axes[0], results, strict=True):
        rows = result["rows"]
        names = list(rows[0]["median"])
        for i, name in enumerate(names):
            base = names[-1]
            height = 0.8 / len(names)
            y = [r + (i - (len(names) - 1) / 2) * height for r in range(len(rows))]
            x = [row["median"][name] / row["median"][base] for row in rows]
            bars = ax.barh(y, x, height, label=name, color=COLOURS[i % len(COLOURS)])
            shown = [_value(row["median"][name], row["unit"]) for row in rows]
            ax.bar_label(bars, shown, padding=3, fontsize=7)
        ax.axvline(1, color="black", linewidth=0.6)
        ax.set_yticks(range(len(rows)), [_label(row) for row in rows], fontsize=8)
        ax.invert_yaxis()
        ax.margins(x=0.25)
        ax.set_title(result["model"], fontsize=9)
        ax.set_xlabel(f"relative to {names[-1]}", fontsize=8)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="upper right", fontsize=8)
    machine, settings = report["machine"], report["settings"]
    figure.suptitle(f"{machine['cpu']}, {settings['threads']} threads, {report['time']}", fontsize=9)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
    return path


if __name__ == "__main__":
    source = Path(sys.argv[1])
    print(draw(json.loads(source.read_text()), source.with_suffix(".png")))
