"""What replicas on Ray Serve add up to, and what they cost: `python -m bench.replicas`.

On a Ray cluster of this machine (`pip install 'ggserve[ray]' psutil`), with the bundled model: throughput of
1, 2 and 4 replicas whose steps take a fixed time, overhead and processor time beside one `ggserve serve`, and
the share of prompts that comes out of the prefix cache.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
os.environ |= {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}

import psutil  # noqa: E402
import ray  # noqa: E402
from ray import serve  # noqa: E402

from bench import client  # noqa: E402
from bench.servers import is_healthy  # noqa: E402
from server.config.settings import Settings  # noqa: E402
from server.replicas import application  # noqa: E402
from server.replicas.options import Deployment  # noqa: E402

MODEL = ROOT / "models" / "stories.gguf"
PARALLEL = 4
STEP_MS = 100.0
ROLES = {
    "ray::ServeReplica:ggserve:ingress": "ingress",
    "ray::ServeReplica:ggserve:replica": "replica",
    "ray::ProxyActor": "proxy",
}


class SlowReplica(application.ServedReplica):
    """With the engine process of `bench.slow_engine`."""

    async def __init__(self, options: dict[str, Any]) -> None:
        argv = (sys.executable, "-m", "bench.slow_engine", "--step-ms", str(STEP_MS))
        await super().__init__(options, argv)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class Direct:
    """One `ggserve serve`."""

    def __init__(self) -> None:
        self.port = free_port()
        options = (
            "--port",
            str(self.port),
            "--threads",
            "1",
            "--parallel",
            str(PARALLEL),
            "--max-queue",
            "1000",
        )
        command = [
            sys.executable,
            "-m",
            "server",
            "serve",
            "-m",
            str(MODEL),
            "--log-level",
            "error",
            *options,
        ]
        self.process = subprocess.Popen(command, cwd=ROOT)
        while not is_healthy(self.port):
            time.sleep(0.1)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


def deploy(port: int, n: int, replica: type[application.ServedReplica], ingresses: int = 1) -> None:
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    settings = Settings(model=[str(MODEL)], threads=1, parallel=PARALLEL, max_queue=1000, log_level="error")
    deployment = Deployment.of(settings, replicas=n, cpus=1, ingresses=ingresses)
    serve.run(application.application_of(deployment, replica), name=application.NAME, route_prefix="/")


def processor_times() -> Counter[str]:
    """Seconds of processor time so far, by what the processes of this run are for."""
    times: Counter[str] = Counter()
    for process in psutil.Process().children(recursive=True):
        try:
            name, used = process.cmdline(), process.cpu_times()
        except psutil.Error:
            continue
        if not name:
            continue
        role = ROLES.get(name[0], "engine" if "server.worker.process.main" in name else "")
        if "serve" in name and "server" in name:
            role = "server"
        times[role or "other"] += used.user + used.system
    return times


def throughput(port: int, n_streams: int, max_tokens: int) -> float:
    """Tokens per second of all streams together."""
    prompts = [client.prompt(seed, 40) for seed in range(n_streams)]
    seconds, answers = client.together(port, prompts, max_tokens)
    return sum(answer.tokens for answer in answers) / seconds


def post(connection: http.client.HTTPConnection, path: str, body: dict[str, Any]) -> Any:
    connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
    answer = connection.getresponse()
    content = json.load(answer)
    assert answer.status == 200, content
    return content


def latencies(port: int, n: int) -> list[float]:
    """Milliseconds of requests for one token, one after the other, on one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    times = []
    for i in range(n):
        began = time.perf_counter()
        body = {"prompt": client.prompt(i, 20), "max_tokens": 1, "temperature": 0}
        post(connection, "/v1/completions", body)
        times.append((time.perf_counter() - began) * 1000)
    connection.close()
    return times


def first_tokens(port: int, n: int) -> list[float]:
    """Milliseconds to the first token of a stream, one after the other."""
    return [client.complete(port, client.prompt(i, 20), 4).first * 1000 for i in range(n)]


def cost(port: int, n_streams: int, max_tokens: int) -> dict[str, float]:
    """Processor time by role: milliseconds for each request, microseconds for each token of a stream."""
    throughput(port, 4, 8)
    results = {}
    for n_tokens in (1, max_tokens):
        before = processor_times()
        prompts = [client.prompt(seed, 20) for seed in range(n_streams)]
        with ThreadPoolExecutor(PARALLEL) as pool:
            list(pool.map(lambda ids: client.complete(port, ids, n_tokens), prompts))  # noqa: B023
        used = processor_times() - before
        results[n_tokens] = {role: used[role] / n_streams for role in used}
    costs: dict[str, float] = {}
    for role, seconds in results[max_tokens].items():
        per_token = (seconds - results[1].get(role, 0.0)) / (max_tokens - 1)
        costs[f"{role} us per token"] = per_token * 1e6
        costs[f"{role} ms per request"] = (results[1].get(role, 0.0) - per_token) * 1e3
    return costs


def cached_share(port: int, n_chats: int, n_turns: int) -> str:
    """Of the prompt tokens of several chats at the same time, the share out of the prefix cache.

    Of all turns, and of those after the first.
    """

    def chat(i: int) -> list[tuple[int, int]]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        messages = [{"role": "system", "content": "You tell stories to children. Be short."}]
        turns = []
        for turn in range(n_turns):
            messages.append({"role": "user", "content": f"Tell me story {turn} about animal number {i}."})
            body = {"messages": messages, "temperature": 0, "max_tokens": 30}
            answer = post(connection, "/v1/chat/completions", body)
            messages.append(answer["choices"][0]["message"])
            usage = answer["usage"]
            turns.append((usage["prompt_tokens_details"]["cached_tokens"], usage["prompt_tokens"]))
        connection.close()
        return turns

    with ThreadPoolExecutor(n_chats) as pool:
        chats = list(pool.map(chat, range(n_chats)))
    shares = []
    for first in (0, 1):
        turns = [turn for chat in chats for turn in chat[first:]]
        shares.append(sum(cached for cached, _ in turns) / sum(total for _, total in turns))
    return f"{shares[0]:.3f}, after the first turn {shares[1]:.3f}"


def show(name: str, value: Any) -> None:
    print(f"{name:<44}{value}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--requests", type=int, default=200, help="of each measurement of latency")
    options = parser.parse_args()
    ray.init("local", num_cpus=64, include_dashboard=False, log_to_driver=False)
    port = free_port()
    direct = Direct()
    try:
        show("direct: cached share of chats", cached_share(direct.port, PARALLEL, 8))
        for n in options.replicas:
            deploy(port, n, SlowReplica)
            throughput(port, PARALLEL * n, 4)
            speed = throughput(port, 2 * PARALLEL * n, 48)
            most = PARALLEL * n * 1000 / STEP_MS
            show(f"{n} replicas: tokens/s (of {most:.0f})", f"{speed:.1f}")
            serve.delete(application.NAME)
            deploy(port, n, application.ServedReplica)
            show(f"{n} replicas: cached share of chats", cached_share(port, PARALLEL, 8))
        for measure in (latencies, first_tokens):
            for target in (direct.port, port):
                measure(target, 20)
            rounds = [(measure(direct.port, 25), measure(port, 25)) for _ in range(options.requests // 25)]
            for i, name in enumerate(("direct", "replicas")):
                times = [value for pair in rounds for value in pair[i]]
                deciles = statistics.quantiles(times, n=20)
                show(
                    f"{name}: {measure.__name__}, ms",
                    f"{statistics.median(times):.2f}, p95 {deciles[-1]:.2f}",
                )
        for name, target in (("direct", direct.port), ("replicas", port)):
            for what, value in cost(target, options.requests, 128).items():
                show(f"{name}: {what}", f"{value:.2f}")
    finally:
        direct.stop()
        serve.shutdown()
        ray.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
