"""Which replica gets a request: the one that has computed most of its prompt, unless others are less busy."""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import msgspec

from engine.types import Request

BLOCK = 16  # tokens
KEY = 8  # bytes of a block's key
MAX_BLOCKS = 1 << 15  # remembered for each replica: half a million tokens
LOAD_TOKENS = 32  # prompt tokens that may be computed again to have one request less beside


def prefix_keys(request: Request, tokens: Sequence[int] = ()) -> bytes:
    """A key for each whole block of the prompt, which also stands for everything before the block.

    tokens: generated in addition to those in `request.generated`.
    """
    if not request.cache_prompt:
        return b""
    tokens = array("i", [*request.prompt, *request.generated, *tokens])
    data = memoryview(tokens.tobytes())
    size = BLOCK * tokens.itemsize
    key = blake2b(msgspec.msgpack.encode((request.cache_salt, request.lora)), digest_size=KEY).digest()
    keys = bytearray()
    for start in range(0, len(data) - size + 1, size):
        key = blake2b(data[start : start + size], digest_size=KEY, key=key).digest()
        keys += key
    return bytes(keys)


def split_keys(keys: bytes) -> list[bytes]:
    return [keys[i : i + KEY] for i in range(0, len(keys), KEY)]


class RecentBlocks:
    """The blocks that a replica has computed most recently."""

    def __init__(self, most: int = MAX_BLOCKS) -> None:
        self._blocks: OrderedDict[bytes, None] = OrderedDict()
        self._most = most

    def __len__(self) -> int:
        return len(self._blocks)

    def add(self, keys: bytes) -> None:
        """Add the blocks of a prompt. The first ones, which others may share, are forgotten last."""
        for key in reversed(split_keys(keys)):
            self._blocks[key] = None
            self._blocks.move_to_end(key)
        while len(self._blocks) > self._most:
            self._blocks.popitem(last=False)

    def matching(self, keys: bytes) -> int:
        """How many tokens at the beginning of a prompt are in these blocks."""
        n = 0
        for key in split_keys(keys):
            if key not in self._blocks:
                break
            n += BLOCK
        return n

    def newest(self, most: int) -> bytes:
        """The newest `n` blocks, oldest first."""
        keys = list(self._blocks)
        return b"".join(keys[-most:])


class Placements:
    """Which replica has computed what, as seen by one ingress."""

    def __init__(self, most: int) -> None:
        """most: the number of replicas to remember."""
        self._replicas: OrderedDict[str, RecentBlocks] = OrderedDict()
        self._most = most

    def add(self, replica: str, keys: bytes) -> None:
        blocks = self._replicas.setdefault(replica, RecentBlocks())
        blocks.add(keys)
        self._replicas.move_to_end(replica)
        if len(self._replicas) > self._most:
            self._replicas.popitem(last=False)

    def cached(self, keys: bytes) -> dict[str, int]:
        """How many tokens at the beginning of a prompt each replica has; replicas without any are omitted."""
        counts = {replica: blocks.matching(keys) for replica, blocks in self._replicas.items()}
        return {replica: n for replica, n in counts.items() if n}


@dataclass(frozen=True)
class ReplicaLoad:
    """A replica as the router sees it. running: requests there. cached: tokens of the prompt that it has.

    routed: a sequence number of the last request that it got.
    """

    id: str
    running: int
    cached: int = 0
    routed: int = 0


def rank(n_tokens: int, candidates: Iterable[ReplicaLoad], parallel: int) -> Sequence[str]:
    """The replicas in the order in which to try them for a prompt of `n_tokens`.

    parallel: requests that run at the same time on a replica. A replica with a free slot comes before one
    without. Otherwise the cost counts: the prompt tokens left to compute, plus a few for each running
    request. Equal ones take turns.
    """

    def cost(candidate: ReplicaLoad) -> tuple[int, int, int]:
        waiting = max(candidate.running + 1 - parallel, 0)
        tokens = n_tokens - candidate.cached + LOAD_TOKENS * candidate.running
        return waiting, tokens, candidate.routed

    return [candidate.id for candidate in sorted(candidates, key=cost)]
