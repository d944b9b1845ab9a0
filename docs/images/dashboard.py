"""Draw dashboard.png beside this file: deploy/grafana's panels after minutes of load, from a real Prometheus.

`pip install matplotlib`, `apt install prometheus`, then `python docs/images/dashboard.py [MINUTES]` in the
checkout. It stands in for Grafana, which comes from no package index: what a panel asks is asked, and its
lines are drawn with their legends and units.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parents[2]
SERVER, PROMETHEUS = "127.0.0.1:18888", "127.0.0.1:19090"
OPTIONS = ("--parallel", "2", "--max-queue", "3", "--threads", "1", "--kv-cells", "600")
TEXTS = ("Once upon a time there was a", "The little dog said to the cat:", "Lily and Tom went to the park. ")


def get(url: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read()


def wait_for(url: str) -> None:
    while True:
        try:
            get(url)
            return
        except OSError:
            time.sleep(0.5)


def client(seed: int, end: float) -> None:
    """Texts that begin alike, with pauses: there are hits in the prefix cache, a queue and refusals."""
    rng = random.Random(seed)
    while time.monotonic() < end:
        prompt = rng.choice(TEXTS) * rng.randint(1, 12) + str(rng.randint(0, 9))
        try:
            get(f"http://{SERVER}/v1/completions", {"prompt": prompt, "max_tokens": rng.randint(10, 400)})
        except urllib.error.HTTPError as error:
            error.close()
        time.sleep(rng.expovariate(1))


def series(query: str, start: float, end: float) -> list[Any]:
    fields = urllib.parse.urlencode({"query": query, "start": start, "end": end, "step": 5})
    result: list[Any] = json.loads(get(f"http://{PROMETHEUS}/api/v1/query_range?{fields}"))["data"]["result"]
    return result


def draw(start: float, end: float) -> None:
    board = json.loads((ROOT / "deploy/grafana/dashboards/ggserve.json").read_text())
    figure, axes = plt.subplots(len(board["panels"]) // 2, 2, figsize=(14, 20), layout="constrained")
    for panel in board["panels"]:
        place = panel["gridPos"]
        plot = axes[place["y"] // place["h"]][place["x"] // place["w"]]
        plot.set_title(panel["title"], loc="left", fontsize=10)
        for target in panel["targets"]:
            lines = series(target["expr"], start, end)
            if not lines:
                print(f"no data: {panel['title']}: {target['expr']}")
            for line in lines:
                labels = line["metric"]
                legend = re.sub(
                    r"\{\{(\w+)\}\}", lambda m, of=labels: of.get(m[1], ""), target["legendFormat"]
                )
                x, y = zip(*((t - start, float(v)) for t, v in line["values"]), strict=True)
                plot.plot([t / 60 for t in x], y, label=legend)
        plot.set_ylim(0, max(1e-3, 1.1 * plot.get_ylim()[1]))
        plot.set_ylabel({"s": "s", "percentunit": "share"}.get(panel["fieldConfig"]["defaults"]["unit"], ""))
        plot.legend(fontsize=8)
        plot.grid(alpha=0.3)
    figure.supxlabel("minutes")
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=70)


def main() -> None:
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    config = (ROOT / "deploy/prometheus.yml").read_text().replace("ggserve:8080", SERVER)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "prometheus.yml").write_text(config)
        host, port = SERVER.split(":")
        model = ("--model", "models/stories.gguf", "--host", host, "--port", port)
        processes = [
            subprocess.Popen([sys.executable, "-m", "server", "serve", *model, *OPTIONS], cwd=ROOT),
            subprocess.Popen(
                ["prometheus", "--config.file=prometheus.yml", f"--web.listen-address={PROMETHEUS}"],
                cwd=folder,
            ),
        ]
        try:
            wait_for(f"http://{SERVER}/health")
            wait_for(f"http://{PROMETHEUS}/-/ready")
            start, end = time.time(), time.monotonic() + 60 * minutes
            clients = [threading.Thread(target=client, args=(seed, end)) for seed in range(16)]
            for thread in clients:
                thread.start()
            for thread in clients:
                thread.join()
            time.sleep(15)  # the last samples
            draw(start, time.time())
        finally:
            for process in processes:
                process.terminate()
                process.wait()


if __name__ == "__main__":
    main()
