"""The prefix cache: which cells hold prefixes that were computed before.

A radix tree over token ids. A node owns a run of tokens and the cells that hold them; the path from the
root to a node spells a prefix. Sequences in use lock the path down to their node; what no sequence locks
may be evicted, least recently used leaf first, from its tail.

Recurrent layers keep one state, not one for each token. In a model that has any, a node may have a checkpoint
of the state at its end, and a sequence can go on only from a node that has one. Layers with a window have
rows for some cells only (`engine.cache.window_rows`), and a sequence can go on where the last cells have
them; a node's checkpoint keeps those before its end.

Each `Variant` has a tree of its own, since the same tokens have other keys and values in it.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from engine.cache.cell_pool import CellPool
from engine.cache.prefix_miss import Miss, common_prefix, miss_after
from engine.cache.state_slots import NO_SLOT
from engine.errors import OutOfMemoryError
from engine.types import AdapterScales


class Variant(NamedTuple):
    """What keys and values depend on besides the tokens.

    uses_long_rope: whether with the rotary factors of long sequences (LongRoPE). adapters: LoRA adapters.
    salt: no dependence at all; keeps apart what clients must not share.
    """

    uses_long_rope: bool = False
    adapters: AdapterScales = ()
    salt: str = ""


PLAIN = Variant()


class Node:
    """A run of tokens below its parent. `lock` counts the sequences in use at or below this node.

    checkpoint: the slot with the recurrent state at its end, see `engine.cache.state_slots`.
    evicted: tokens that followed it until they were evicted.
    """

    __slots__ = ("cells", "checkpoint", "children", "evicted", "last_used", "lock", "parent", "tokens")

    def __init__(self, parent: Node | None, tokens: array[int], cells: array[int]) -> None:
        self.parent = parent
        self.tokens = tokens
        self.cells = cells
        self.children: dict[int, Node] = {}  # by their first token
        self.lock = 0
        self.last_used = 0
        self.checkpoint = NO_SLOT
        self.evicted: set[int] = set()


class Match(NamedTuple):
    """The first `n` tokens are in `cells`, of which no sequence locks `n_unlocked`.

    node: where they end (the last of them may lie in its middle until the match is acquired).
    n_known: tokens that the cache holds, more than `n` where they go on without a checkpoint.
    miss: why it ends there.
    """

    n: int
    cells: array[int]
    node: Node | None
    n_unlocked: int
    n_known: int
    miss: Miss = Miss.NONE


class PrefixCache:
    """Finds, keeps and evicts computed prefixes. It owns the cells in it; sequences only lock them."""

    def __init__(self, pool: CellPool) -> None:
        self.pool = pool
        self.roots: dict[Variant, Node] = {}  # of variants that have any node
        self.n_cells = 0  # in the tree
        self.n_evictable = 0  # of these, without a lock
        self.n_evicted = 0  # ever
        self._clock = 0
        # (last_used, order, node) of nodes that became evictable leaves. Entries are not removed when a node
        # is used again; an entry is valid only while it has the node's present last_used.
        self._lru: list[tuple[int, int, Node]] = []
        self._order = 0

    def match(self, tokens: array[int], limit: int | None = None, variant: Variant = PLAIN) -> Match:
        """The longest prefix of `tokens` to go on from, at most `limit` of them. Changes nothing."""
        return self._find(tokens, limit, variant)[0]

    def acquire(
        self,
        tokens: array[int],
        limit: int | None = None,
        variant: Variant = PLAIN,
        *,
        resumable: bool = True,
    ) -> Match:
        """Like `match`, and lock it until `release`. A node is split where the match ends.

        resumable False: all that is known, also where no recurrent state could go on.
        """
        match, k = self._find(tokens, limit, variant, resumable=resumable)
        node = match.node
        if node is None:
            return match
        if k < len(node.tokens):
            node = self._split(node, k)
        self._lock(node, None)
        return match._replace(node=node)

    def insert(
        self,
        tokens: array[int],
        cells: array[int],
        n: int,
        node: Node | None = None,
        start: int = 0,
        variant: Variant = PLAIN,
    ) -> Node:
        """Take over the cells of tokens[start:n], which continue `node`; return the node they end in.

        The caller's lock on `node` (None: the root) moves to the returned node. Where another sequence has
        inserted the same tokens meanwhile, its cells replace those in `cells`, which are freed.
        """
        locked = node
        at = node or self._root(variant)
        while start < n:
            child = at.children.get(tokens[start])
            if child is None:
                at = self._append(at, tokens[start:n], cells[start:n], in_place=at is locked or at.lock == 0)
                break
            k = common_prefix(child.tokens, tokens[start:n])
            if k < len(child.tokens):
                child = self._split(child, k)
            ours = cells[start : start + k]
            cells[start : start + k] = child.cells
            if self.pool.windows is not None:
                self.pool.windows.replace(ours, child.cells)
            self.pool.free(ours)
            at, start = child, start + k
        self._lock(at, locked)
        return at

    def release(self, node: Node) -> None:
        """Drop the caller's lock. The path counts as just used."""
        self._clock += 1
        at: Node | None = node
        while at is not None and at.parent is not None:
            at.lock -= 1
            at.last_used = self._clock
            if not at.lock:
                self.n_evictable += len(at.cells)
            at = at.parent
        self._offer(node)

    def forget(self, node: Node) -> None:
        """Drop the caller's lock, and free what no other sequence locks or continues: it may be wrong."""
        self.release(node)
        while node.parent is not None and not node.lock and not node.children:
            parent = node.parent
            self._remove(node)
            node = parent
        self._offer(node)

    def evict(self, n: int) -> int:
        """Free up to `n` cells, least recently used first; return how many."""
        done = 0
        lru = self._lru
        while done < n and lru:
            last_used, _, node = lru[0]
            if last_used != node.last_used or node.lock or node.children or node.parent is None:
                heappop(lru)
                continue
            lack = n - done
            if lack < len(node.cells):
                self._drop_checkpoints(node)
                self.pool.free(node.cells[-lack:])
                node.evicted = {node.tokens[-lack]}
                del node.cells[-lack:], node.tokens[-lack:]
                self.n_cells -= lack
                self.n_evictable -= lack
                done += lack
            else:
                heappop(lru)
                parent = node.parent
                done += len(node.cells)
                parent.evicted.add(node.tokens[0])
                self._remove(node)
                self._offer(parent)
        self.n_evicted += done
        return done

    @property
    def n_available(self) -> int:
        """Cells that are free or can be freed by evicting."""
        return self.pool.n_free + self.n_evictable

    def make_room(self, n: int) -> None:
        """Evict until `n` cells of the pool are free. OutOfMemoryError if sequences in use hold too many."""
        if n > self.pool.n_free:
            self.evict(n - self.pool.n_free)
        if n > self.pool.n_free:
            raise OutOfMemoryError(
                f"{n} cells of the KV cache are needed and {self.pool.n_free} of {self.pool.n_cells} are "
                "free; close other sessions of this model or raise kv_cells"
            )

    def nodes(self) -> Iterator[Node]:
        """All nodes except the roots."""
        stack = [node for root in self.roots.values() for node in root.children.values()]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(node.children.values())

    def check(self) -> None:
        """Raise AssertionError if the tree, its counters or its order of eviction are inconsistent."""
        offered = {id(node) for used, _, node in self._lru if used == node.last_used}
        seen: set[int] = set()
        n_evictable = 0
        for node in self.nodes():
            assert node.parent is not None
            assert node.parent.children[node.tokens[0]] is node
            assert len(node.tokens) == len(node.cells) > 0
            assert node.lock >= sum(child.lock for child in node.children.values())
            assert all(node.last_used >= child.last_used for child in node.children.values())
            assert not any(self.pool.is_free(cell) for cell in node.cells), "a cached cell is free"
            assert seen.isdisjoint(node.cells), "two nodes share a cell"
            seen.update(node.cells)
            if not node.lock:
                n_evictable += len(node.cells)
                assert node.children or id(node) in offered, "a leaf can never be evicted"
        assert (len(seen), n_evictable) == (self.n_cells, self.n_evictable)

    def _find(
        self, tokens: array[int], limit: int | None, variant: Variant, *, resumable: bool = True
    ) -> tuple[Match, int]:
        """The longest match, and how many tokens of its last node belong to it."""
        cells = array("i")
        node = self.roots.get(variant)
        path: list[tuple[int, Node]] = []  # where each node begins
        n = 0
        end = len(tokens) if limit is None else min(limit, len(tokens))
        while node is not None and n < end and (child := node.children.get(tokens[n])) is not None:
            path.append((n, child))
            size = len(child.tokens)
            if size <= end - n and child.tokens == tokens[n : n + size]:
                cells.extend(child.cells)
                n += size
                node = child
            else:
                k = common_prefix(child.tokens, tokens[n : min(end, n + size)])
                cells.extend(child.cells[:k])
                n += k
                break
        n_known = n
        miss = Miss.NONE
        if n < end:
            miss = Miss.NEW if node is None else miss_after(node.children, node.evicted, tokens[n], n)
            if path and path[-1][1] is not node:  # it ends in the middle of one
                miss = Miss.DIVERGED
        if resumable:
            n = self._n_resumable(path, cells)
            del cells[n:]
            while path and path[-1][0] >= n:
                path.pop()
        if n < n_known:
            miss = Miss.NO_CHECKPOINT
        if not path:
            return Match(0, cells, None, 0, n_known, miss), 0
        begin, last = path[-1]
        # Who locks a node locks those above it.
        first_unlocked = next((start for start, at in path if not at.lock), n)
        return Match(n, cells, last, n - first_unlocked, n_known, miss), n - begin

    def _n_resumable(self, path: list[tuple[int, Node]], cells: array[int]) -> int:
        """The most tokens of a path after which a sequence can go on."""
        n, windows = len(cells), self.pool.windows
        if self.pool.states is None:
            return n if windows is None else windows.n_resumable(cells)
        for begin, node in reversed(path):
            n = begin + len(node.tokens)
            known = n <= len(cells) and node.checkpoint != NO_SLOT
            if known and (windows is None or windows.n_resumable(cells[:n]) == n):
                return n
        return 0

    def _root(self, variant: Variant) -> Node:
        root = self.roots.get(variant)
        if root is None:
            # Requests choose scales: roots of variants that hold nothing would pile up.
            for other in [other for other, old in self.roots.items() if not old.children]:
                del self.roots[other]
            root = self.roots[variant] = Node(None, array("i"), array("i"))
        return root

    def _split(self, node: Node, k: int) -> Node:
        """Cut a node behind its first `k` tokens; return the new upper part.

        The lower part stays the same object, so that sequences that end in it still point to their end.
        """
        parent = node.parent
        assert parent is not None
        upper = Node(parent, node.tokens[:k], node.cells[:k])
        upper.lock, upper.last_used = node.lock, node.last_used
        upper.children[node.tokens[k]] = node  # what was evicted followed the lower part
        parent.children[node.tokens[0]] = upper
        node.parent = upper
        del node.tokens[:k], node.cells[:k]
        return upper

    def _append(self, at: Node, tokens: array[int], cells: array[int], *, in_place: bool) -> Node:
        """Add new tokens below `at`, or to it where no other sequence ends in it or continues it."""
        self.n_cells += len(cells)
        in_place = in_place and not self._has_checkpoint(at)  # which is of this end
        if in_place and at.lock <= 1 and not at.children and at.parent is not None:
            if not at.lock:
                self.n_evictable += len(cells)
            at.evicted.clear()  # which followed the old end
            at.tokens.extend(tokens)
            at.cells.extend(cells)
            return at
        leaf = Node(at, tokens, cells)
        at.children[tokens[0]] = leaf
        at.evicted.discard(tokens[0])
        self.n_evictable += len(cells)
        return leaf

    def _lock(self, node: Node, locked: Node | None) -> None:
        """Lock the path from `node` up to `locked`, whose path the caller has locked already."""
        self._clock += 1
        at: Node = node
        while at is not locked and at.parent is not None:
            if not at.lock:
                self.n_evictable -= len(at.cells)
            at.lock += 1
            at.last_used = self._clock
            at = at.parent
        while at.parent is not None:
            at.last_used = self._clock
            at = at.parent

    def _offer(self, node: Node) -> None:
        """Queue a node for eviction if it is an unlocked leaf."""
        if node.lock or node.children or node.parent is None:
            return
        self._order += 1
        heappush(self._lru, (node.last_used, self._order, node))
        if self._order % 1024 == 0:  # outdated entries would pile up while nothing is evicted
            self._lru[:] = [e for e in self._lru if e[0] == e[2].last_used and e[2].parent is not None]
            heapify(self._lru)

    def _remove(self, leaf: Node) -> None:
        """Take an unlocked leaf out of the tree and free its cells."""
        parent = leaf.parent
        assert parent is not None
        self._drop_checkpoints(leaf)
        del parent.children[leaf.tokens[0]]
        leaf.parent = None
        self.pool.free(leaf.cells)
        self.n_cells -= len(leaf.cells)
        self.n_evictable -= len(leaf.cells)

    def _has_checkpoint(self, node: Node) -> bool:
        windows = self.pool.windows
        return node.checkpoint != NO_SLOT or (windows is not None and node in windows.checkpoints)

    def _drop_checkpoints(self, node: Node) -> None:
        if self.pool.states is not None:
            self.pool.states.drop(node)
        if self.pool.windows is not None:
            self.pool.windows.forget(node)
