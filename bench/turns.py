"""How many prompt tokens the turns of chats compute, beside llama.cpp's server.

`python -m bench.turns --model m.gguf`: one request after the other, greedy, first as token ids without any
structure, then (`--words`) as the messages of chats. Reported is `timings.prompt_n`.
"""

from __future__ import annotations

import argparse
import json
import random
import string
import sys
import urllib.request
from pathlib import Path
from typing import Any

from bench.run import cores
from bench.servers import Server, Settings

ANSWER = 12  # tokens
N_CHATS = 4
ROWS = (
    "one chat: first turn, next turn, its message edited",
    f"{N_CHATS} chats with one system prompt: first turns",
    "their next turns",
)
Message = dict[str, str]


class Client:
    """Sends requests; `computed` has the prompt tokens that each computed."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.computed: list[int] = []

    def send(self, path: str, **body: Any) -> Any:
        data = json.dumps({"temperature": 0, "ignore_eos": True, "cache_prompt": True, **body}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, headers)
        with urllib.request.urlopen(request, timeout=600) as response:
            reply = json.load(response)
        self.computed.append(reply["timings"]["prompt_n"])
        return reply

    def continue_ids(self, ids: list[int]) -> list[int]:
        """The prompt and its answer."""
        reply = self.send("/completion", prompt=ids, n_predict=ANSWER, return_tokens=True)
        return [*ids, *reply["tokens"]]

    def continue_chat(self, messages: list[Message]) -> list[Message]:
        """The messages and the answer."""
        reply = self.send("/v1/chat/completions", messages=messages, max_tokens=ANSWER)
        return [*messages, {"role": "assistant", "content": reply["choices"][0]["message"]["content"]}]

    def take(self) -> str:
        """What was computed since the last call."""
        computed, self.computed = self.computed, []
        return ", ".join(map(str, computed))


def with_ids(client: Client, n: int, id_end: int) -> dict[str, str]:
    """Prompts of token ids, of which the first has n. id_end: they are below it."""
    rng = random.Random(5)

    def ids(n: int) -> list[int]:
        return [rng.randrange(id_end // 2, id_end) for _ in range(n)]

    chat = client.continue_ids(ids(n))
    client.continue_ids([*chat, *ids(10)])
    client.continue_ids([*chat, *ids(14)])
    rows = {ROWS[0]: client.take()}
    system = ids(n)
    chats = [client.continue_ids([*system, *ids(20)]) for _ in range(N_CHATS)]
    rows[ROWS[1]] = client.take()
    for chat in chats:
        client.continue_ids([*chat, *ids(10)])
    return {**rows, ROWS[2]: client.take()}


def with_messages(client: Client, n: int) -> dict[str, str]:
    """Messages, of which the first has n words of three letters."""
    rng = random.Random(6)

    def message(n: int, role: str = "user") -> Message:
        words = ["".join(rng.choices(string.ascii_lowercase, k=3)) for _ in range(n)]
        return {"role": role, "content": " ".join(words)}

    chat = client.continue_chat([message(n)])
    client.continue_chat([*chat, message(10)])
    client.continue_chat([*chat, message(14)])
    rows = {f"messages: {ROWS[0]}": client.take()}
    system = message(n, "system")
    chats = [client.continue_chat([system, message(20)]) for _ in range(N_CHATS)]
    rows[f"messages: {ROWS[1]}"] = client.take()
    for chat in chats:
        client.continue_chat([*chat, message(10)])
    return {**rows, f"messages: {ROWS[2]}": client.take()}


def main(argv: list[str] | None = None) -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--model", type=Path, required=True)
    p.add_argument("--only", choices=["ggserve", "xllamacpp"], help="one server alone")
    p.add_argument("--prompt", type=int, default=1500, help="tokens of the long prompt")
    p.add_argument("--ids", type=int, default=2000, help="token ids are below it")
    p.add_argument("--context-size", type=int, default=2048)
    p.add_argument("--parallel", type=int, default=4)
    p.add_argument("--words", type=int, help="also as messages, the long one with so many words")
    p.add_argument("--threads", type=int, default=cores())
    p.add_argument("--peer-python", default=sys.executable, help="a Python that has xllamacpp")
    args = p.parse_args(argv)
    settings = Settings(args.model, args.threads, args.context_size, args.parallel, batch=512)
    results: dict[str, dict[str, str]] = {}
    for name in [args.only] if args.only else ["ggserve", "xllamacpp"]:
        server = Server(name, settings, args.peer_python)
        if name == "xllamacpp":
            server.command += ["--cache-ram", "8192"]  # its default
        with server:
            client = Client(server.port)
            results[name] = with_ids(client, args.prompt, args.ids)
            if args.words:
                results[name] |= with_messages(client, args.words)
    print(f"{args.model.name}: prompt tokens computed by {' | '.join(results)}")
    for row in next(iter(results.values())):
        print(f"{row}: {' | '.join(result[row] for result in results.values())}")


if __name__ == "__main__":
    main()
