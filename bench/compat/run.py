"""Runs the suite against both servers and writes the table of docs/compatibility.md."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.compat import report
from bench.compat.models import PRESET_MODELS, made
from bench.compat.peer import llama_server
from bench.compat.suite import identity, unpack
from bench.random_model import cache_dir

ROOT = Path(__file__).resolve().parents[2]


def _program(folder: Path) -> Path:
    """A program that takes llama-server's flags and is ggserve."""
    path = folder / "llama-server"
    words = [sys.executable, "-m", "bench.compat.wrapper"]
    path.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(ROOT))} exec {shlex.join(words)} "$@"\n')
    path.chmod(0o755)
    return path


def _run(name: str, program: Path, tests: Path, results: Path, file: str, test: str, timeout: int) -> Path:
    """One pass over one file, or over one test of it. Returns where its results are."""
    junit = results / f"{name}-{file}.xml"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("GGSERVE_", "LLAMA_"))}
    if "GGSERVE_CACHE" in os.environ:
        environment["GGSERVE_CACHE"] = os.environ["GGSERVE_CACHE"]
    environment |= {
        "PYTHONPATH": str(ROOT),
        "LLAMA_SERVER_BIN_PATH": str(program),
        "LLAMA_CACHE": str(tests / "cache"),
        "COMPAT_COUNTS": str(results / f"{'alone' if name == 'alone' else 'peer'}-{file}.json"),
        "COMPAT_RECORD": "0" if name == "ours" else "1",
    }
    options = [
        "-q",
        "-p",
        "no:asyncio",
        "-p",
        "bench.compat.plugin",
        "--noconftest",
        "-c",
        "pytest.ini",
        "-m",
        "not slow",
    ]
    options += ["--tb=short", "--show-capture=no", f"--timeout={timeout}", "-o", "junit_logging=all"]
    target = f"unit/{file}.py" + (f"::{test}" if test else "")
    command = [sys.executable, "-m", "pytest", *options, f"--junitxml={junit}", target]
    subprocess.run(command, cwd=tests, env=environment, check=False)
    return junit


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.compat", description=__doc__)
    parser.add_argument(
        "--only", action="append", default=[], metavar="FILE[::TEST]", help="such as test_infill; repeatable"
    )
    parser.add_argument("--ours", action="store_true", help="run ggserve only; nothing is compared")
    parser.add_argument("--peer", action="store_true", help="run llama-server again (its results are kept)")
    parser.add_argument("--jobs", type=int, default=1, help="processes that compile llama-server")
    parser.add_argument("--timeout", type=int, default=120, help="seconds for one test")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table into this document")
    args = parser.parse_args()
    for model in PRESET_MODELS.values():
        made(model)
    results = cache_dir() / "compat" / identity()
    results.mkdir(parents=True, exist_ok=True)
    comparison: report.Comparison = {}
    with tempfile.TemporaryDirectory(prefix="compat-") as name:
        tests = unpack(Path(name))
        program = _program(Path(name))
        for chosen in args.only or sorted(path.stem for path in (tests / "unit").glob("test_*.py")):
            file, _, test = chosen.partition("::")
            file = file.removesuffix(".py")
            if args.ours:
                _run("alone", program, tests, results, file, test, args.timeout)
                continue
            peer = results / f"peer-{file}.xml"
            if args.peer or not peer.exists():  # always the whole file: it is kept
                _run("peer", llama_server(args.jobs), tests, results, file, "", args.timeout)
            ours = _run("ours", program, tests, results, file, test, args.timeout)
            comparison |= report.compare(peer, ours)
    if args.ours:
        return
    print(report.table(comparison))
    if args.write:
        report.write(args.write, comparison)
    sys.exit(1 if report.failures(comparison) else 0)
