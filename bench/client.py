"""The measuring client: the same code, on the same wire format, for every server.

Plain `http.client` in threads: little CPU of its own (it shares the cores with the servers), and
each event is stamped when it arrives, before anything is parsed.
"""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Answer:
    """One streamed completion. Times in seconds since the request was sent."""

    prompt_tokens: int
    tokens: int  # generated, as the server's usage says
    first: float  # first event that carries text
    last: float  # the event that carries finish_reason
    total: float
    cached: int
    finish: str


def prompt(seed: int, n: int) -> list[int]:
    """n token ids that no other seed shares a beginning with; ids that every vocabulary has."""
    rng = random.Random(seed)
    return [rng.randrange(300, 2000) for _ in range(n)]


def complete(
    port: int,
    ids: list[int],
    max_tokens: int,
    timeout: float = 600.0,
    arrived: Callable[[float], None] = lambda at: None,
) -> Answer:
    """Streams one greedy completion of exactly max_tokens tokens; nothing cached is used or left.

    arrived: called with the time (of time.perf_counter) at which each event came.
    """
    body = json.dumps(
        {
            "prompt": ids,
            "max_tokens": max_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "cache_prompt": False,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    )
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        start = time.perf_counter()
        connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            raise RuntimeError(f"HTTP {response.status}: {response.read(500)!r}")
        events = []
        while line := response.readline():
            if line.startswith(b"data: "):
                now = time.perf_counter()
                events.append((now - start, line[6:]))
                arrived(now)
        return read(events, time.perf_counter() - start, max_tokens)
    finally:
        connection.close()


def read(events: list[tuple[float, bytes]], total: float, max_tokens: int) -> Answer:
    """The answer that the data of these events, stamped with the time of their arrival, make up."""
    first = last = None
    usage, finish = {}, ""
    for at, line in events:
        if line.strip() == b"[DONE]":
            continue
        event = json.loads(line)
        if event.get("error"):
            raise RuntimeError(str(event["error"]))
        usage = event.get("usage") or usage
        for choice in event.get("choices") or ():
            if choice.get("text") and first is None:
                first = at
            if choice.get("finish_reason"):
                last, finish = at, choice["finish_reason"]
    if first is None or last is None or not usage:
        raise RuntimeError(f"no text, finish_reason or usage in {len(events)} events")
    if usage["completion_tokens"] != max_tokens:
        raise RuntimeError(f"{usage['completion_tokens']} tokens generated instead of {max_tokens}")
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return Answer(usage["prompt_tokens"], usage["completion_tokens"], first, last, total, cached, finish)


def together(port: int, prompts: list[list[int]], max_tokens: int) -> tuple[float, list[Answer]]:
    """All prompts at once, one thread and connection each: (seconds until all are done, answers)."""
    barrier = threading.Barrier(len(prompts) + 1)
    answers: list[Answer | BaseException | None] = [None] * len(prompts)

    def one(i: int) -> None:
        barrier.wait()
        try:
            answers[i] = complete(port, prompts[i], max_tokens)
        except BaseException as error:  # handed to the caller's thread
            answers[i] = error

    threads = [threading.Thread(target=one, args=(i,), daemon=True) for i in range(len(prompts))]
    for t in threads:
        t.start()
    barrier.wait()
    start = time.perf_counter()
    for t in threads:
        t.join()
    seconds = time.perf_counter() - start
    done = []
    for answer in answers:
        if not isinstance(answer, Answer):
            raise RuntimeError("a stream failed") from answer
        done.append(answer)
    return seconds, done
