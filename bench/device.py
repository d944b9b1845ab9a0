"""Check and measure a device in one command, with a dated report and plots in docs/devices/.

`python -m bench.device cuda` (or `CUDA0`, `vulkan`, `clblast`, …) builds the backend if it is missing, runs
the tests of operations and of answers on the device, and measures prefill by batch size, decoding by number
of streams, the same over HTTP (beside llama.cpp's server where `--peer-python` has one for such a device),
and several splits between device and CPU. Each part is kept in `bench/out/` when it ends: the same command
continues after an interruption or `--minutes`, and writes the report when all parts are there.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import engine
from bench import client, device_report, engine_step, random_model
from bench.run import cores, machine
from bench.servers import Server, Settings
from engine.ggml.backend import Device, devices
from engine.model.preparation import preview

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "bench/out"
BATCHES = (8, 32, 128, 512)
STREAMS = (1, 8, 64)
SPLITS = (0.0, 0.25, 0.5, 0.75, 1.0)
TESTS = {
    "operations": ["tests/backends/test_operations.py"],
    "answers": ["tests/backends/test_same_answers.py", "-k", "CLBlast and not RPC"],
}

Figures = dict[str, Any]


def find(name: str) -> Device | None:
    """The device called `name`, or the first one of the backend `name`."""
    everything = devices()
    exact = [d for d in everything if d.name.lower() == name.lower()]
    of_backend = [d for d in everything if d.backend.lower() == name.lower() and d.type != "cpu"]
    return next(iter([*exact, *of_backend]), None)


def build(name: str) -> None:
    """Build the backend of `name` beside the others, and begin anew with it. Exits if it stays missing."""
    backend = re.sub(r"\d+$", "", name).lower()
    installed = json.loads((ROOT / "engine/lib/build.json").read_text())["GGSERVE_BACKENDS"].split(";")
    if backend in installed or "GGSERVE_BENCH_BUILT" in os.environ:
        sys.exit(f"no device {name}: its driver or card is missing (`ggserve devices` lists what is there)")
    print(f"building the backend {backend}", file=sys.stderr)
    env = {**os.environ, "GGSERVE_BACKENDS": ",".join([*installed, backend])}
    subprocess.run(["make", "build", f"VENV={Path(sys.prefix)}"], cwd=ROOT, env=env, check=True)
    os.environ["GGSERVE_BENCH_BUILT"] = "1"
    os.execv(sys.executable, [sys.executable, "-m", "bench.device", *sys.argv[1:]])


def tests(device: Device, arguments: list[str]) -> Figures:
    """{passed, skipped, failed: {test: reason}} of pytest on the device."""
    with tempfile.TemporaryDirectory() as folder:
        junit = Path(folder) / "junit.xml"
        # xunit1 has the properties that tests record.
        options = ["-q", "-p", "no:cacheprovider", f"--junitxml={junit}", "-o", "junit_family=xunit1"]
        command = [sys.executable, "-m", "pytest", *options]
        env = {**os.environ, "GGSERVE_TEST_DEVICE": device.name}
        process = subprocess.run(
            [*command, *arguments], cwd=ROOT, env=env, capture_output=True, text=True, check=False
        )
        if not junit.exists():
            raise RuntimeError(f"pytest ended with {process.returncode}:\n{process.stdout[-2000:]}")
        cases = list(ElementTree.parse(junit).iter("testcase"))
    failed = {
        f"{case.get('classname')}.{case.get('name')}": (bad.get("message") or "").partition("\n")[0]
        for case in cases
        for bad in [*case.iter("failure"), *case.iter("error")]
    }
    skipped = sum(case.find("skipped") is not None for case in cases)
    return {"passed": len(cases) - len(failed) - skipped, "skipped": skipped, "failed": failed}


def parameters(device: Device, n_layers: int | None = None) -> engine.ModelParameters:
    """n_layers: how many are on the device; None: all."""
    params = engine.ModelParameters(
        use_gpu=True,
        devices=(device.name,),
        context_size=1024,
        kv_cells=max(STREAMS) * 256,
        parallel=max(STREAMS),
        n_threads=cores(),
        max_batch_tokens=max(BATCHES),
    )
    if n_layers == 0:
        return replace(params, use_gpu=False, devices=())
    return params if n_layers is None else replace(params, gpu_layers=n_layers)


def rates(model: engine.Model, batches: tuple[int, ...], streams: tuple[int, ...]) -> Figures:
    """Tokens per second of prefill, by tokens in a batch, and of decoding, by streams."""
    prefill = {n: 1e6 * n / engine_step.prefill(model, n, 3)["step"] for n in batches}
    decode = {n: 1e6 * n / engine_step.decode(model, n, 16, None)["step"] for n in streams}
    return {"prefill": prefill, "decode": decode}


def engine_rates(device: Device, path: Path) -> Figures:
    with engine.load(path, parameters(device)) as model:
        return rates(model, BATCHES, STREAMS)


def splits(device: Device, path: Path) -> Figures:
    """Rates of the largest batch and of one stream, by layers on the device (the output counts as one)."""
    n_all = len(preview(path, parameters(device)).layers)
    figures = {}
    for n in dict.fromkeys(round(share * n_all) for share in SPLITS):
        with engine.load(path, parameters(device, n)) as model:
            figures[n] = rates(model, BATCHES[-1:], STREAMS[:1])
    return figures


def streams(device: Device, path: Path, peer_python: str) -> Figures:
    """Tokens per second of concurrent streams over HTTP, of ours and of the peer if it has such a device."""
    settings = Settings(path, cores(), 256, max(STREAMS), max(BATCHES), device=device.name)
    figures: Figures = {}
    for name in ["ggserve", *(["xllamacpp"] if peer_has(device, peer_python) else [])]:
        with Server(name, settings, peer_python) as server:
            client.complete(server.port, client.prompt(1, 64), 8)
            figures[name] = {"load_s": server.load_s}
            for n in STREAMS:
                prompts = [client.prompt(1000 * n + i, 64) for i in range(n)]
                seconds, answers = client.together(server.port, prompts, 64)
                figures[name][n] = sum(a.tokens for a in answers) / seconds
    return figures


def peer_has(device: Device, python: str) -> bool:
    """Whether the peer's wheel was built for devices of this backend."""
    code = "import xllamacpp; print([d['name'] for d in xllamacpp.get_device_info()])"
    listed = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False).stdout
    return re.sub(r"\d+$", "", device.name) in listed


def parts(device: Device, path: Path, peer_python: str) -> dict[str, Callable[[], Figures]]:
    return {
        **{name: lambda a=arguments: tests(device, a) for name, arguments in TESTS.items()},  # type: ignore[misc]
        "engine": lambda: engine_rates(device, path),
        "streams": lambda: streams(device, path, peer_python),
        "splits": lambda: splits(device, path),
    }


def run(todo: dict[str, Callable[[], Figures]], state: Path, minutes: float) -> dict[str, Figures] | None:
    """The figures of all parts, with those in `state`; None: `minutes` went by before the last began."""
    done: dict[str, Figures] = json.loads(state.read_text()) if state.exists() else {}
    start = time.monotonic()
    for name, part in todo.items():
        if name in done:
            continue
        if time.monotonic() - start > 60 * minutes:
            print(f"{minutes:g} minutes are over; the same command goes on with {name}", file=sys.stderr)
            return None
        print(f"{name} …", end=" ", file=sys.stderr, flush=True)
        began = time.monotonic()
        done[name] = json.loads(json.dumps(part()))  # keys as they will be read back
        done[name]["seconds"] = time.monotonic() - began
        print(f"{done[name]['seconds']:.0f} s", file=sys.stderr)
        state.parent.mkdir(parents=True, exist_ok=True)
        state.write_text(json.dumps(done, indent=1) + "\n")
    return done


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("device", help="a backend (cuda, vulkan, clblast …) or a device (CUDA0)")
    p.add_argument("--model", type=Path, help="default: a random 1.1B Q4_0")
    p.add_argument("--minutes", type=float, default=20, help="start no further part after this time")
    p.add_argument("--again", action="store_true", help="measure all parts again")
    p.add_argument("--peer-python", default=sys.executable, help="a Python that has xllamacpp")
    p.add_argument("--docs", type=Path, default=ROOT / "docs/devices", help="folder for the report")
    args = p.parse_args()
    device = find(args.device)
    if device is None:
        build(args.device)
        return
    path = args.model or random_model.cached("1.1B", "q4_0")
    state = OUT / f"device-{device.name}-{path.stem}.json"
    if args.again:
        state.unlink(missing_ok=True)
    figures = run(parts(device, path, args.peer_python), state, args.minutes)
    if figures is not None:
        facts = {
            "device": f"{device.name}, {device.description}",
            "machine": machine(),
            "model": path.name,
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
        }
        print(device_report.write(args.docs, device.name, facts, figures))


if __name__ == "__main__":
    main()
