"""Replicas on a cluster: the same texts as of one server, also when replicas and nodes are lost."""

from __future__ import annotations

import importlib
import json
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest
import yaml

from replicas.cluster import CPUS, RunningCluster
from server.cli.main import main
from support.server_process import ServerProcess
from support.waiting import wait_until

PROMPT = "Once upon a time there was a little boy who lived in a big house by the sea and liked"
N_TOKENS = 400
REPLICAS = 2


def post(url: str, path: str, body: dict[str, Any]) -> Any:
    data = json.dumps({"model": "stories", **body}).encode()
    return urllib.request.urlopen(
        urllib.request.Request(url + path, data, {"content-type": "application/json"}), timeout=120
    )


def stream(url: str, on_chunk: Callable[[int], None] = lambda n: None, **fields: Any) -> str:
    """The text of a streamed completion. on_chunk: hears how many chunks have come."""
    body = {"prompt": PROMPT, "max_tokens": N_TOKENS, "seed": 7, "ignore_eos": True, "stream": True, **fields}
    parts = []
    with post(url, "/v1/completions", body) as answer:
        for line in answer:
            if line.startswith(b"data: {"):
                chunk = json.loads(line[6:])
                assert "error" not in chunk
                parts.append(chunk["choices"][0]["text"])
                on_chunk(len(parts))
    return "".join(parts)


@pytest.fixture(scope="session")
def direct() -> Iterator[str]:
    """The address of one server."""
    with ServerProcess("--threads", "1") as process:
        yield process.url


@pytest.fixture(scope="session")
def deployed(cluster: RunningCluster) -> str:
    """The address of two replicas."""
    cluster.deploy("--replicas", str(REPLICAS))
    return cluster.url


@pytest.fixture
def url(cluster: RunningCluster, deployed: str) -> str:
    """The same, once both are there: Ray Serve replaces those that are lost."""
    wait_until(lambda: len(cluster.engines()) == REPLICAS)
    return deployed


def busy_engine(cluster: RunningCluster, url: str) -> psutil.Process:
    """The one that computes streams of `PROMPT`: those that follow go there too."""
    before = cluster.engines()
    stream(url)
    return max(before, key=lambda engine: sum(engine.cpu_times()[:2]) - before[engine])


def test_texts_through_the_proxy_match_those_of_one_server(url: str, direct: str) -> None:
    chunks = []
    assert stream(url, chunks.append) == stream(direct)
    assert len(chunks) > N_TOKENS  # one by one
    body = {"messages": [{"role": "user", "content": "Tell me a story."}], "temperature": 0, "max_tokens": 30}
    answers = [json.load(post(base, "/v1/chat/completions", body)) for base in (url, direct)]
    assert answers[0]["choices"] == answers[1]["choices"]


def test_embeddings_and_other_tasks_run_on_replicas(url: str, direct: str) -> None:
    vectors = [json.load(post(base, "/v1/embeddings", {"input": PROMPT})) for base in (url, direct)]
    assert vectors[0]["data"] == vectors[1]["data"]


def test_an_answer_has_one_request_id(url: str) -> None:
    with post(url, "/v1/completions", {"prompt": "Once", "max_tokens": 1}) as answer:
        assert len(answer.headers.get_all("x-request-id")) == 1


def test_a_stream_continues_when_its_replica_is_killed(
    cluster: RunningCluster, url: str, direct: str
) -> None:
    replica = busy_engine(cluster, url).parent()

    def kill(n: int) -> None:
        if n == 100:
            replica.kill()

    assert stream(url, kill) == stream(direct)
    assert not replica.is_running()


def test_a_stream_continues_when_its_engine_is_killed(cluster: RunningCluster, url: str, direct: str) -> None:
    engine = busy_engine(cluster, url)

    def kill(n: int) -> None:
        if n == 100:
            engine.kill()

    assert stream(url, kill) == stream(direct)
    assert not engine.is_running()


def test_a_stream_continues_when_its_node_is_lost(cluster: RunningCluster, url: str, direct: str) -> None:
    node = cluster.node_of(busy_engine(cluster, url))

    def remove(n: int) -> None:
        if n == 100:
            cluster.cluster.remove_node(node, allow_graceful=False)
            cluster.nodes.remove(node)

    try:
        assert stream(url, remove) == stream(direct)
    finally:
        cluster.nodes.append(cluster.cluster.add_node(num_cpus=CPUS))


def test_config_file_is_readable_by_ray_serve(capsys: pytest.CaptureFixture[str]) -> None:
    from ray.serve._private.api import call_user_app_builder_with_args_if_necessary
    from ray.serve.schema import ServeDeploySchema

    assert main(["ray", "config", "stories", "--autoscale", "1,2", "--replica-gpus", "0.5"]) == 0
    config = ServeDeploySchema.model_validate(yaml.safe_load(capsys.readouterr().out))
    (application,) = config.applications
    module, _, name = application.import_path.partition(":")
    builder = getattr(importlib.import_module(module), name)
    built = call_user_app_builder_with_args_if_necessary(builder, application.args)
    assert built._bound_deployment.name == "ingress"


def cached_share(url: str, n_chats: int, n_turns: int) -> float:
    """Of the prompts of several chats at the same time, the share of tokens that came out of the cache."""

    def chat(i: int) -> tuple[int, int]:
        messages = [{"role": "system", "content": "You tell stories to children. Be short."}]
        cached = prompt = 0
        for turn in range(n_turns):
            messages.append({"role": "user", "content": f"Tell me story {turn} about animal number {i}."})
            body = {"messages": messages, "temperature": 0, "max_tokens": 30}
            answer = json.load(post(url, "/v1/chat/completions", body))
            messages.append(answer["choices"][0]["message"])
            usage = answer["usage"]
            cached += usage["prompt_tokens_details"]["cached_tokens"]
            prompt += usage["prompt_tokens"]
        return cached, prompt

    with ThreadPoolExecutor(n_chats) as pool:
        cached, prompt = map(sum, zip(*pool.map(chat, range(n_chats)), strict=True))
    return cached / prompt


def test_turns_of_a_chat_are_found_in_the_cache(url: str, direct: str) -> None:
    alone = cached_share(direct, 4, 8)
    assert alone > 0.5
    assert cached_share(url, 4, 8) >= 0.9 * alone


def test_replicas_are_added_while_requests_wait(cluster: RunningCluster, direct: str) -> None:
    cluster.delete()  # else it starts with as many replicas as there are
    cluster.deploy("--autoscale", "1,2", "--parallel", "1")
    wait_until(lambda: len(cluster.engines()) == 1)
    text = stream(direct)
    with ThreadPoolExecutor(8) as pool:
        while len(cluster.engines()) < 2:
            assert list(pool.map(lambda _: stream(cluster.url), range(8))) == [text] * 8
