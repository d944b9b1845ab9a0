"""The report of `bench.device`: a page with tables, and a plot beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

Figures = dict[str, Any]


def write(folder: Path, name: str, facts: dict[str, Any], figures: dict[str, Figures]) -> Path:
    """`folder`/NAME-DATE.md and .png; the path of the page."""
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / f"{name.lower()}-{facts['date']}.md"
    picture = draw(figures, facts, page.with_suffix(".png"))
    page.write_text("\n".join(text(name, facts, figures, picture)) + "\n")
    return page


def text(name: str, facts: dict[str, Any], figures: dict[str, Figures], picture: Path | None) -> list[str]:
    machine = facts["machine"]
    lines = [
        f"# {name}, {facts['date']}",
        "",
        f"`python -m bench.device` on {facts['device']}; host: {machine['cpu']}, {machine['cores']} cores, "
        f"load {machine['load_before']:.1f} at the end. Model: `{facts['model']}`. Rates are medians.",
        "",
        "## Tests on the device",
        "",
        "| | passed | skipped | failed |",
        "|---|---|---|---|",
    ]
    for part in ("operations", "answers"):
        result = figures[part]
        lines.append(f"| {part} | {result['passed']} | {result['skipped']} | {len(result['failed'])} |")
    failed = figures["operations"]["failed"] | figures["answers"]["failed"]
    lines += ["", *(f"- `{test}`: {reason}" for test, reason in failed.items()), *([""] if failed else [])]
    rates = figures["engine"]
    lines += ["## In the engine, all layers on the device", ""]
    lines += ["| prefill, tokens in a batch | tokens/s |", "|---|---|"]
    lines += [f"| {n} | {rate:.1f} |" for n, rate in rates["prefill"].items()]
    lines += ["", "| decode, streams | tokens/s of all |", "|---|---|"]
    lines += [f"| {n} | {rate:.1f} |" for n, rate in rates["decode"].items()]
    lines += ["", "## Over HTTP: prompts of 64 tokens, 64 generated", ""]
    servers = {server: f for server, f in figures["streams"].items() if server != "seconds"}
    lines += [f"| | {' | '.join(servers)} |", "|---|" + "---|" * len(servers)]
    ours = servers["ggserve"]
    for row in ours:
        title = "start until ready, s" if row == "load_s" else f"{row} streams, tokens/s"
        lines.append(f"| {title} | " + " | ".join(f"{f[row]:.1f}" for f in servers.values()) + " |")
    if "xllamacpp" not in servers:
        lines += ["", "There was no build of llama.cpp's server for this device to compare with."]
    lines += ["", "## Split between the device and the CPU", ""]
    lines += ["| layers on the device | prefill, tokens/s | decode, tokens/s |", "|---|---|---|"]
    for n, rates in figures["splits"].items():
        if n != "seconds":
            (prefill,), (decode,) = rates["prefill"].values(), rates["decode"].values()
            lines.append(f"| {n} | {prefill:.1f} | {decode:.1f} |")
    if picture is not None:
        lines += ["", f"![Prefill by batch size, decoding by streams, and splits]({picture.name})"]
    return lines


def draw(figures: dict[str, Figures], facts: dict[str, Any], path: Path) -> Path | None:
    """None without matplotlib (`pip install '.[bench]'`)."""
    try:
        import matplotlib as mpl
    except ImportError:
        return None
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    splits = {int(n): rates for n, rates in figures["splits"].items() if n != "seconds"}
    panels = [
        ("prefill by tokens in a batch", figures["engine"]["prefill"]),
        ("decoding by streams", figures["engine"]["decode"]),
        (
            "decoding by layers on the device",
            {n: next(iter(r["decode"].values())) for n, r in splits.items()},
        ),
    ]
    figure, axes = plt.subplots(1, len(panels), figsize=(12, 3.6))
    for ax, (title, rates) in zip(axes, panels, strict=True):
        ax.plot([str(n) for n in rates], list(rates.values()), marker="o", color="#2a6fbb")
        ax.set_title(title, fontsize=9)
        ax.set_ylabel("tokens/s", fontsize=8)
        ax.set_ylim(bottom=0)
        ax.grid(axis="y", linewidth=0.3)
    figure.suptitle(f"{facts['device']}, {facts['model']}, {facts['date']}", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
