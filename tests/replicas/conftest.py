"""Replicas on a Ray cluster of several nodes: `GGSERVE_RAY=1 python -m pytest tests/replicas`.

They need `requirements.txt`, in an environment that also has ggserve. All nodes are on this machine.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from replicas.cluster import CPUS, RunningCluster

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.filterwarnings("ignore"))  # those of ray
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def cluster() -> Iterator[RunningCluster]:
    import ray
    from ray import serve
    from ray.cluster_utils import Cluster

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=CPUS) for _ in range(3)]
    ray.init(address=cluster.address, log_to_driver=False)
    # The proxy of a node that is removed would take connections with it.
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
    try:
        yield RunningCluster(cluster, nodes, port)
    finally:
        serve.shutdown()
        ray.shutdown()
        cluster.shutdown()
