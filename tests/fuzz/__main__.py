"""Fuzzing by coverage, for as long as one likes.

In the folder tests, with atheris (the extra `fuzz`): `python -m fuzz gguf -max_total_time=600`. What follows
the target are options of libFuzzer. New inputs go to build/fuzz/TARGET.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
with atheris.instrument_imports(include=["engine.gguf", "engine.cache.session_file", "engine.model.info"]):
    from fuzz.targets import CORPUS, TARGETS


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: python -m fuzz {{{','.join(TARGETS)}}} [options of libFuzzer]")
    name = sys.argv[1]
    target = TARGETS[name]
    actual = ROOT / "build" / "fuzz" / name
    actual.mkdir(parents=True, exist_ok=True)

    def run(data: bytes) -> None:
        target(data)

    atheris.Setup([sys.argv[0], *sys.argv[2:], str(actual), str(CORPUS / name)], run)
    atheris.Fuzz()


main()
