"""Mixed load for minutes or hours, to see whether memory, file descriptors, threads and latency grow.

`python -m bench.soak --minutes 30`: clients in threads send completions, chats, JSON answers, broken requests
and prompts that fill the context; some leave in prefill or in a stream, some read slowly. Meanwhile a sample
is taken every few seconds. Writes a report and a plot. The exit status is 1 if something grew, if a request
that should be answered was not, or if a gauge does not return to zero.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import re
import socket
import statistics
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.run import cores
from bench.servers import HERE, Server, Settings

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
WORDS = ("Once", "upon", "a", "time", "there", "was", "little", "cat", "house", "river", "and", "in")
GAUGES = ("ggserve_running", "ggserve_waiting", "ggserve_cells_used")
ALLOWED_GROWTH = {"pss": (0.05, 16 << 20), "fds": (0.0, 8), "threads": (0.0, 4)}  # relative, absolute


@dataclass
class Log:
    """What the clients saw. latency: (seconds since the start, time to first token in ms)."""

    start: float
    outcomes: Counter[str] = field(default_factory=Counter)
    latency: list[tuple[float, float]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, kind: str, outcome: str, first_ms: float | None = None) -> None:
        with self.lock:
            self.outcomes[f"{kind}: {outcome}"] += 1
            if first_ms is not None:
                self.latency.append((time.monotonic() - self.start, first_ms))

    def fault(self, text: str) -> None:
        with self.lock:
            self.faults.append(text)


class Client:
    """One client of the mixture; each call of `act` is one request."""

    def __init__(self, port: int, seed: int, context: int, log: Log) -> None:
        self.port, self.context, self.log = port, context, log
        self.random = random.Random(seed)

    def act(self) -> None:
        """Send a request of a kind drawn at random, and log how it ended."""
        kinds: list[tuple[int, Callable[[], str]]] = [
            (8, self.stream),
            (4, self.chat),
            (2, self.structured),
            (2, self.broken),
            (1, self.long_prompt),
            (4, self.leave_in_stream),
            (3, self.leave_in_prefill),
            (1, self.read_slowly),
        ]
        kind = self.random.choices([action for _, action in kinds], [weight for weight, _ in kinds])[0]
        try:
            outcome = kind()
        except Exception as error:
            self.log.fault(f"{kind.__name__}: {error!r}")
            outcome = type(error).__name__
        self.log.count(kind.__name__, outcome)

    def stream(self) -> str:
        body = {"prompt": self.text(20), "max_tokens": self.random.randrange(1, 60), "stream": True}
        with self.request(COMPLETIONS, body) as (response, start):
            if response.status != 200:
                return self.refused(response)
            while (first := response.readline()).startswith((b":", b"\n")):
                pass  # a comment: there is nothing to send yet
            self.log.count("stream", "first token", (time.monotonic() - start) * 1e3)
            self.require((first + response.read()).endswith(b"data: [DONE]\n\n"), "a stream without an end")
        return "200"

    def chat(self) -> str:
        """A conversation of up to three turns, whose beginning is cached."""
        messages = [{"role": "user", "content": self.text(10)}]
        for _ in range(self.random.randrange(1, 4)):
            with self.request(CHAT, {"messages": messages, "max_tokens": 20}) as (response, _start):
                if response.status != 200:
                    return self.refused(response)
                messages += [json.load(response)["choices"][0]["message"], messages[0]]
        return "200"

    def structured(self) -> str:
        schema = {"type": "object", "properties": {"n": {"enum": [1, 2, 3]}}, "required": ["n"]}
        schema |= {"additionalProperties": False, "title": f"s{self.random.randrange(50)}"}
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        body = {"messages": [{"role": "user", "content": self.text(5)}], "response_format": form}
        with self.request(CHAT, body) as (response, _):
            if response.status != 200:
                return self.refused(response)
            text = json.load(response)["choices"][0]["message"]["content"]
            self.require(json.loads(text)["n"] in (1, 2, 3), f"not by the schema: {text!r}")
        return "200"

    def broken(self) -> str:
        body = self.random.choice(
            [b"{", b"[]", b'{"prompt": 7.5}', b'{"prompt": "a", "max_tokens": -2}', b"[" * 20_000]
        )
        with self.request(COMPLETIONS, body) as (response, _):
            self.require(response.status == 400, f"{body[:40]!r}: status {response.status}")
            return str(response.status)

    def long_prompt(self) -> str:
        body = {"prompt": self.text(int(self.context * 0.6)), "max_tokens": 4}
        with self.request(COMPLETIONS, body) as (response, _):
            return "200" if response.status == 200 and response.read() else self.refused(response)

    def leave_in_stream(self) -> str:
        body = {"prompt": self.text(10), "max_tokens": 500, "stream": True, "ignore_eos": True}
        with self.request(COMPLETIONS, body, abort=True) as (response, _):
            if response.status != 200:
                return self.refused(response)
            for _line in range(self.random.randrange(1, 10)):
                response.readline()
        return "left"

    def leave_in_prefill(self) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        body = json.dumps({"prompt": self.text(int(self.context * 0.6)), "max_tokens": 100})
        connection.request("POST", COMPLETIONS, body, {"content-type": "application/json"})
        time.sleep(self.random.random() * 0.3)
        connection.close()
        return "left"

    def read_slowly(self) -> str:
        body = {"prompt": self.text(10), "max_tokens": 100, "stream": True}
        with self.request(COMPLETIONS, body) as (response, _):
            if response.status != 200:
                return self.refused(response)
            text = b""
            while piece := response.read(200):
                text += piece
                time.sleep(0.02)
            self.require(text.endswith(b"data: [DONE]\n\n"), "a slowly read stream without an end")
        return "200"

    def text(self, n: int) -> str:
        return " ".join(self.random.choices(WORDS, k=n))

    def require(self, holds: bool, text: str) -> None:
        if not holds:
            self.log.fault(text)

    def refused(self, response: http.client.HTTPResponse) -> str:
        """A refusal that tells when to come back; anything else is a fault."""
        wait = response.headers["retry-after"]
        self.require(
            response.status == 429 and wait is not None, f"{response.status}: {response.read(300)!r}"
        )
        time.sleep(0.1)
        return str(response.status)

    def request(self, path: str, body: Any, abort: bool = False) -> Exchange:
        return Exchange(
            self.port, path, body if isinstance(body, bytes) else json.dumps(body).encode(), abort
        )


class Exchange:
    """A request and its response, as a context: (response, time of sending). abort: it ends with a reset."""

    def __init__(self, port: int, path: str, body: bytes, abort: bool) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
        self.path, self.body, self.abort = path, body, abort

    def __enter__(self) -> tuple[http.client.HTTPResponse, float]:
        start = time.monotonic()
        self.connection.request("POST", self.path, self.body, {"content-type": "application/json"})
        if self.abort:
            linger = struct.pack("ii", 1, 0)
            self.connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.response = self.connection.getresponse()
        return self.response, start

    def __exit__(self, *error: object) -> None:
        self.response.close()
        self.connection.close()


def gauges(port: int) -> dict[str, float]:
    """Those that must be zero without requests."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    values = re.findall(rf"^({'|'.join(GAUGES)}){{.*}} (\S+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in values}


def samples(server: Server, log: Log, seconds: float, every: float) -> Iterator[dict[str, float]]:
    """The server's usage now and then, until the time is over."""
    while (t := time.monotonic() - log.start) < seconds:
        yield {"t": t, **server.usage()}
        time.sleep(max(0.0, min(every, seconds - (time.monotonic() - log.start))))


def growth(rows: list[dict[str, float]]) -> list[str]:
    """What is higher in the last quarter than in the second one, when caches were warm; one line each."""
    n = len(rows)
    if n < 8:
        return []
    grown = []
    for name, (relative, absolute) in ALLOWED_GROWTH.items():
        early = statistics.median(row[name] for row in rows[n // 4 : n // 2])
        late = statistics.median(row[name] for row in rows[n - n // 4 :])
        if late > early * (1 + relative) + absolute:
            grown.append(f"{name}: {early:.0f} in the second quarter, {late:.0f} in the last")
    return grown


def run(server: Server, args: argparse.Namespace) -> dict[str, Any]:
    """Load and samples; the report."""
    log = Log(time.monotonic())
    done = threading.Event()

    def work(seed: int) -> None:
        client = Client(server.port, seed, args.context_size, log)
        while not done.is_set():
            client.act()

    threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(args.clients)]
    for thread in threads:
        thread.start()
    rows = list(samples(server, log, args.minutes * 60, args.every))
    done.set()
    for thread in threads:
        thread.join(320)
    deadline = time.monotonic() + 10
    while any((last := gauges(server.port)).values()) and time.monotonic() < deadline:
        time.sleep(0.1)
    faults = log.faults[:50] + growth(rows)
    faults += [f"{name} is {value:g} without requests" for name, value in last.items() if value]
    return {
        "minutes": args.minutes,
        "clients": args.clients,
        "requests": sum(n for name, n in log.outcomes.items() if not name.endswith("first token")),
        "outcomes": dict(sorted(log.outcomes.items())),
        "samples": rows,
        "latency": log.latency,
        "faults": faults,
    }


def draw(report: dict[str, Any], path: Path) -> None:
    """Memory, descriptors and threads, and the time to the first token, over time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (memory, counts, latency) = plt.subplots(3, 1, figsize=(9, 7.5), sharex=True)
    minutes = [row["t"] / 60 for row in report["samples"]]
    memory.plot(minutes, [row["pss"] / 2**20 for row in report["samples"]], color="#2a6fbb")
    memory.set_ylabel("memory (PSS), MiB")
    for name, colour in (("fds", "#2a6fbb"), ("threads", "#8a6fbb")):
        counts.plot(minutes, [row[name] for row in report["samples"]], label=name, color=colour)
    counts.set_ylabel("file descriptors, threads")
    counts.legend(loc="lower right", fontsize=8)
    latency.plot(
        [t / 60 for t, _ in report["latency"]],
        [ms for _, ms in report["latency"]],
        ".",
        markersize=2,
        color="#2a6fbb",
        alpha=0.4,
    )
    latency.set_ylabel("time to first token, ms")
    latency.set_xlabel("minutes")
    latency.set_yscale("log")
    for ax in (memory, counts):
        ax.set_ylim(bottom=0)
    figure.suptitle(f"{report['requests']} requests of {report['clients']} clients", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--minutes", type=float, default=3)
    p.add_argument("--clients", type=int, default=12)
    p.add_argument("--every", type=float, default=2, help="seconds between samples")
    p.add_argument("--model", type=Path, default=HERE.parent / "models" / "stories.gguf")
    p.add_argument("--context-size", type=int, default=1024)
    p.add_argument("--parallel", type=int, default=4)
    p.add_argument("--threads", type=int, default=cores())
    p.add_argument("--out", type=Path, default=HERE / "out")
    args = p.parse_args(argv)
    settings = Settings(args.model, args.threads, args.context_size, args.parallel, batch=512)
    with Server("ggserve", settings) as server:
        report = run(server, args)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "soak.json").write_text(json.dumps(report))
    try:
        draw(report, args.out / "soak.png")
    except ImportError:
        print("no plot: matplotlib is not installed")
    for name, n in report["outcomes"].items():
        print(f"{n:>8}  {name}")
    first, last = report["samples"][0], report["samples"][-1]
    for name in ALLOWED_GROWTH:
        print(f"{name}: {first[name]:.0f} at first, {last[name]:.0f} at last")
    for fault in report["faults"]:
        print(f"fault: {fault}")
    return 1 if report["faults"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
