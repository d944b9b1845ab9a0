"""Prompts as keys of blocks, what a replica has of them, and which replica a request should go to."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.types import Request
from server.replicas.routing import (
    BLOCK,
    KEY,
    LOAD_TOKENS,
    Placements,
    RecentBlocks,
    ReplicaLoad,
    prefix_keys,
    rank,
)


def keys(tokens: list[int], **fields) -> bytes:
    return prefix_keys(Request(id="a", prompt=tokens, **fields))


@given(st.lists(st.integers(0, 2**31 - 1), max_size=80), st.lists(st.integers(0, 9), max_size=80))
def test_prompts_share_the_keys_of_their_common_blocks(prompt: list[int], more: list[int]) -> None:
    short, long = keys(prompt), keys(prompt + more)
    assert len(short) == len(prompt) // BLOCK * KEY
    assert long.startswith(short)


def test_prefix_key_covers_everything_before_it() -> None:
    block = list(range(BLOCK))
    once, other = keys([*block, *block]), keys([*block[::-1], *block])
    assert once[:KEY] != once[KEY:]
    assert once[KEY:] != other[KEY:]


def test_prompts_of_other_salts_and_adapters_share_nothing() -> None:
    prompt = list(range(BLOCK))
    different = {keys(prompt), keys(prompt, cache_salt="a"), keys(prompt, lora=((0, 1.0),))}
    assert len(different) == 3


def test_received_tokens_count_as_prompt() -> None:
    prompt = list(range(2 * BLOCK))
    assert keys(prompt[:BLOCK], generated=prompt[BLOCK:]) == keys(prompt)


def test_a_request_that_uses_no_cache_has_no_keys() -> None:
    assert keys(list(range(BLOCK)), cache_prompt=False) == b""


def test_computed_beginning_of_a_prompt_matches() -> None:
    blocks = RecentBlocks()
    prompt = list(range(3 * BLOCK))
    assert blocks.matching(keys(prompt)) == 0
    blocks.add(keys(prompt))
    assert blocks.matching(keys([*prompt, 1, 2])) == 3 * BLOCK
    assert blocks.matching(keys([*prompt[: 2 * BLOCK], *[7] * BLOCK])) == 2 * BLOCK
    assert blocks.matching(keys([7, *prompt])) == 0


def test_too_many_blocks_drop_the_oldest_and_the_ends_of_prompts() -> None:
    blocks = RecentBlocks(most=5)
    old, new = list(range(3 * BLOCK)), [9] * 3 * BLOCK
    blocks.add(keys(old))
    blocks.add(keys(new))
    assert (blocks.matching(keys(old)), blocks.matching(keys(new)), len(blocks)) == (2 * BLOCK, 3 * BLOCK, 5)


def test_reported_blocks_include_the_newest_prompt() -> None:
    blocks, others = RecentBlocks(), RecentBlocks()
    old, new = list(range(3 * BLOCK)), [9] * 3 * BLOCK
    blocks.add(keys(old))
    blocks.add(keys(new))
    others.add(blocks.newest(3))
    assert (others.matching(keys(old)), others.matching(keys(new))) == (0, 3 * BLOCK)


def test_replica_with_the_prompt_ranks_first() -> None:
    candidates = [ReplicaLoad("a", 0), ReplicaLoad("b", 1, cached=1000), ReplicaLoad("c", 0, cached=100)]
    assert rank(1100, candidates, 4) == ["b", "c", "a"]


def test_short_prompt_goes_to_the_least_busy_replica() -> None:
    candidates = [ReplicaLoad("a", 2, cached=LOAD_TOKENS), ReplicaLoad("b", 0), ReplicaLoad("c", 3)]
    assert rank(LOAD_TOKENS, candidates, 4) == ["b", "a", "c"]


def test_free_slot_ranks_before_a_matching_prefix() -> None:
    candidates = [ReplicaLoad("full", 4, cached=100_000), ReplicaLoad("free", 3), ReplicaLoad("fuller", 6)]
    assert rank(100_000, candidates, 4) == ["free", "full", "fuller"]


def test_equal_replicas_take_turns() -> None:
    last_routed = {"a": 9, "b": 7, "c": 8}
    candidates = [ReplicaLoad(id, 1, cached=16, routed=n) for id, n in last_routed.items()]
    assert rank(100, candidates, 4) == ["b", "c", "a"]


def test_router_remembers_how_much_of_a_prompt_each_replica_has() -> None:
    placements = Placements(most=4)
    prompt = list(range(3 * BLOCK))
    placements.add("a", keys(prompt[:BLOCK]))
    placements.add("b", keys(prompt))
    placements.add("c", keys([7, *prompt]))
    assert placements.cached(keys(prompt)) == {"a": BLOCK, "b": 3 * BLOCK}


def test_replicas_unused_for_long_are_forgotten() -> None:
    placements = Placements(most=2)
    prompt = keys(list(range(BLOCK)))
    for replica in ("a", "b", "a", "c"):
        placements.add(replica, prompt)
    assert placements.cached(prompt) == {"a": BLOCK, "c": BLOCK}


def test_generated_tokens_come_after_the_prompt() -> None:
    prompt = list(range(3 * BLOCK))
    request = Request(id="a", prompt=prompt[:BLOCK], generated=prompt[BLOCK : 2 * BLOCK])
    assert prefix_keys(request, prompt[2 * BLOCK :]) == keys(prompt)
