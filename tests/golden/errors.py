"""The largest error of each architecture against its references, into the table of docs/architectures.md.

    python tests/golden/errors.py

On the CPU, with an F32 cache, over all positions that the references of its variants have. See
`tests/golden/README.md`; the measure is that of `support.builders.golden.error`.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import engine  # noqa: E402
from engine.gguf import GGUFFile  # noqa: E402
from support.builders.golden import ENCODERS, FOLDER, NAMES, error, golden  # noqa: E402

DOCUMENT = ROOT / "docs" / "architectures.md"
ROW = re.compile(r"^\| (`[^|]*) \| ([^|]*) \| ([^|]*) \| [\d.e-]+ \|$", re.MULTILINE)


def load(name: str) -> engine.Model:
    params = engine.ModelParameters(use_gpu=False, kv_type="f32", context_size=256, kv_cells=256, n_threads=1)
    return engine.load(FOLDER / f"{name}.gguf", params)


def error_of(name: str) -> float:
    """Of one variant: of its logits, or of an encoder's hidden states."""
    with load(name) as model:
        if name in ENCODERS:
            with np.load(FOLDER / f"{name}.npz") as ref:
                hidden = model.embed(ref["prompt"].tolist(), pooling="none", normalize=False)
                return max(map(error, hidden, ref["hidden"]))
        reference, errors, begin = golden(name), [], 0
        with model.start_session(engine.InferenceSessionConfig(cache_prompt=False)) as session:
            for position, logits in zip(reference.positions, reference.logits, strict=True):
                session.feed_prompt(reference.prompt[begin : position + 1])
                errors.append(error(session.last_logits, logits))
                begin = position + 1
        return max(errors)


def largest() -> dict[str, float]:
    """By architecture, over its variants."""
    collected: dict[str, float] = {}
    for name in (*NAMES, *ENCODERS):
        with GGUFFile.open(FOLDER / f"{name}.gguf") as file:
            arch = file.arch
        collected[arch] = max(collected.get(arch, 0.0), error_of(name))
    return collected


def main() -> None:
    errors, text = largest(), DOCUMENT.read_text()

    def row(match: re.Match[str]) -> str:
        figure = max(errors[arch] for arch in re.findall(r"`([^`]+)`", match[1]))
        return f"| {match[1]} | {match[2]} | {match[3]} | {f'{figure:.1e}'.replace('e-0', 'e-')} |"

    DOCUMENT.write_text(ROW.sub(row, text))


if __name__ == "__main__":
    main()
