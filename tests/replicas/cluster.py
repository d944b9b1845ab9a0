"""A Ray cluster on this machine, and what tests do to it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from server.cli.main import main

ROOT = Path(__file__).parents[2]
# Before ray is imported. The processes of the nodes find ggserve in the checkout.
os.environ |= {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
CPUS = 2  # of a node, and of a replica: there is nothing else on its node


@dataclass
class RunningCluster:
    """A head, which takes requests, and three nodes on which replicas fit."""

    cluster: Any
    nodes: list[Any]
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def deploy(self, *options: str) -> None:
        """`ggserve ray deploy` with the bundled model."""
        model = str(ROOT / "models" / "stories.gguf")
        arguments = ["--port", str(self.port), "--threads", "1", "--replica-cpus", str(CPUS), *options]
        assert main(["ray", "deploy", model, *arguments]) == 0

    def delete(self) -> None:
        """End what was deployed."""
        from ray import serve

        serve.delete("ggserve")

    def engines(self) -> dict[psutil.Process, float]:
        """The engine processes of replicas, with the seconds of processor time that each has used."""
        engines = {}
        for process in psutil.Process().children(recursive=True):
            try:
                is_engine = "server.worker.process.main" in process.cmdline()
                if is_engine and process.parent().cmdline()[0].startswith("ray::"):
                    engines[process] = sum(process.cpu_times()[:2])
            except psutil.Error:  # it has just ended
                continue
        return engines

    def node_of(self, process: psutil.Process) -> Any:
        """The node to which a process belongs."""
        parents = {parent.pid for parent in process.parents()}
        for node in self.nodes:
            if any(started.process.pid in parents for started in node.all_processes["raylet"]):
                return node
        raise AssertionError(f"{process} belongs to no node")
