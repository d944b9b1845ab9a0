"""One sequence of tokens and the cache cells that hold its keys and values."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from engine.cache.cell_pool import CellPool
from engine.cache.prefix_cache import Node, PrefixCache, Variant
from engine.types import AdapterScales


class CachedSequence:
    """Tokens, of which the first `n_past` are computed, and the cells that hold those.

    The first `n_shared` cells belong to the prefix cache (`node`, where they end, is locked), the others to
    this sequence alone. prefix None: the sequence neither uses the prefix cache nor leaves anything in it.
    original_context_length: see `HParams`. uses_long_rope: how the cells were computed.
    adapters: the LoRA adapters that compute it; they can change while nothing is computed.
    """

    __slots__ = (
        "adapters",
        "cells",
        "n_past",
        "n_shared",
        "node",
        "original_context_length",
        "pool",
        "prefix",
        "tokens",
        "uses_long_rope",
    )

    def __init__(
        self,
        pool: CellPool,
        prefix: PrefixCache | None,
        tokens: Sequence[int] = (),
        *,
        original_context_length: int = 0,
        adapters: AdapterScales = (),
    ) -> None:
        self.pool = pool
        self.prefix = prefix
        self.tokens = array("i", tokens)
        self.cells = array("i")
        self.n_past = 0
        self.n_shared = 0
        self.node: Node | None = None
        self.original_context_length = original_context_length
        self.uses_long_rope = False
        self.adapters = adapters

    @property
    def n_pending(self) -> int:
        """Tokens still to be computed."""
        return len(self.tokens) - self.n_past

    @property
    def needs_long_rope(self) -> bool:
        """Whether the tokens that it has now are to be computed with the rotary factors of long sequences."""
        return 0 < self.original_context_length < len(self.tokens)

    @property
    def variant(self) -> Variant:
        """How its cells were computed."""
        return Variant(self.uses_long_rope, self.adapters)

    @property
    def next_variant(self) -> Variant:
        """How the tokens that it has now are to be computed."""
        return Variant(self.needs_long_rope, self.adapters)

    def refit(self) -> None:
        """Release the cells if they were computed with the wrong rotary factors: all is to be recomputed."""
        if self.n_past and self.uses_long_rope != self.needs_long_rope:
            self.release()

    def attach(self, limit: int | None = None) -> int:
        """Start with the longest cached prefix of at most `limit` tokens; return its length.

        limit None: all but the last token, whose logits are needed.
        """
        self.uses_long_rope = self.needs_long_rope
        if self.prefix is not None:
            limit = len(self.tokens) - 1 if limit is None else limit
            match = self.prefix.acquire(self.tokens, limit, self.variant)
            self.node, self.cells = match.node, match.cells
            self.n_past = self.n_shared = match.n
        return self.n_past

    def grow(self, n: int) -> None:
        """Allocate cells for the next `n` tokens."""
        cells = self.cells
        after = cells[-1] if cells else -1
        if n == 1:
            cells.append(self.pool.alloc_one(after))
        else:
            cells.extend(self.pool.alloc(n, after))

    def trim(self) -> None:
        """Free the cells whose tokens were not computed."""
        if len(self.cells) > self.n_past:
            self.pool.free(self.cells[self.n_past :])
            del self.cells[self.n_past :]

    def publish(self) -> None:
        """Put what is computed into the prefix cache."""
        if self.prefix is not None and self.n_past > self.n_shared:
            self.node = self.prefix.insert(
                self.tokens, self.cells, self.n_past, self.node, self.n_shared, self.variant
            )
            self.n_shared = self.n_past

    def truncate(self, n: int) -> None:
        """Forget all but the first `n` tokens."""
        self.n_past = min(self.n_past, n)
        self.pool.free(self.cells[max(self.n_past, self.n_shared) :])
        del self.cells[self.n_past :], self.tokens[n:]
        if n < self.n_shared and self.prefix is not None and self.node is not None:
            # Lock only the part that is left: later tokens would otherwise be inserted behind the old end.
            match = self.prefix.acquire(self.tokens, None, self.variant)
            self.prefix.release(self.node)
            self.node, self.cells = match.node, match.cells
            self.n_past = self.n_shared = match.n

    def release(self, *, keep: bool = True) -> None:
        """Give all cells back. keep: what is computed stays in the prefix cache."""
        self.trim()
        if keep:
            self.publish()
        self.pool.free(self.cells[self.n_shared :])
        if self.node is not None and self.prefix is not None:
            if keep:
                self.prefix.release(self.node)
            else:
                self.prefix.forget(self.node)
        self.node, self.cells = None, array("i")
        self.n_past = self.n_shared = 0
