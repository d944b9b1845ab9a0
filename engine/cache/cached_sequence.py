"""One sequence of tokens and the cache cells that hold its keys and values."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from engine.cache.cell_pool import CellPool
from engine.cache.prefix_cache import Node, PrefixCache


class CachedSequence:
    """Tokens, of which the first `n_past` are computed, and the cells that hold those.

    The first `n_shared` cells belong to the prefix index (`node`, where they end, is locked), the others to
    this sequence alone. `index` None: it neither reads the index nor leaves anything in it.
    n_short: see `HParams.n_short`. long: how the cells were computed.
    """

    __slots__ = ("cells", "index", "long", "n_past", "n_shared", "n_short", "node", "pool", "tokens")

    def __init__(
        self, pool: CellPool, index: PrefixCache | None, tokens: Sequence[int] = (), *, n_short: int = 0
    ) -> None:
        self.pool = pool
        self.index = index
        self.tokens = array("i", tokens)
        self.cells = array("i")
        self.n_past = 0
        self.n_shared = 0
        self.node: Node | None = None
        self.n_short = n_short
        self.long = False

    @property
    def n_pending(self) -> int:
        """Tokens still to be computed."""
        return len(self.tokens) - self.n_past

    @property
    def wants_long(self) -> bool:
        """Whether it is to be computed as a long sequence, with the tokens that it has now."""
        return 0 < self.n_short < len(self.tokens)

    def refit(self) -> None:
        """Drop the cells if the sequence has become long, or short again: all is to be computed anew."""
        if self.n_past and self.long != self.wants_long:
            self.release()

    def attach(self) -> int:
        """Start with the longest cached prefix. The last token is never part of it: its logits are wanted."""
        self.long = self.wants_long
        if self.index is not None:
            match = self.index.acquire(self.tokens, len(self.tokens) - 1, self.long)
            self.node, self.cells = match.node, match.cells
            self.n_past = self.n_shared = match.n
        return self.n_past

    def grow(self, n: int) -> None:
        """Cells for the next `n` tokens."""
        cells = self.cells
        after = cells[-1] if cells else -1
        if n == 1:
            cells.append(self.pool.alloc_one(after))
        else:
            cells.extend(self.pool.alloc(n, after))

    def trim(self) -> None:
        """Give back the cells whose tokens were not computed."""
        if len(self.cells) > self.n_past:
            self.pool.free(self.cells[self.n_past :])
            del self.cells[self.n_past :]

    def publish(self) -> None:
        """Let others use what is computed."""
        if self.index is not None and self.n_past > self.n_shared:
            self.node = self.index.insert(
                self.tokens, self.cells, self.n_past, self.node, self.n_shared, self.long
            )
            self.n_shared = self.n_past

    def truncate(self, n: int) -> None:
        """Forget all but the first `n` tokens."""
        self.n_past = min(self.n_past, n)
        self.pool.free(self.cells[max(self.n_past, self.n_shared) :])
        del self.cells[self.n_past :], self.tokens[n:]
        if n < self.n_shared and self.index is not None and self.node is not None:
            # Hold just the part that is left: what follows would else be inserted behind the old end.
            match = self.index.acquire(self.tokens, None, self.long)
            self.index.release(self.node)
            self.node, self.cells = match.node, match.cells
            self.n_past = self.n_shared = match.n

    def release(self, *, keep: bool = True) -> None:
        """Give all cells back; what is computed stays in the index, unless not to `keep` it."""
        self.trim()
        if keep:
            self.publish()
        self.pool.free(self.cells[self.n_shared :])
        if self.node is not None and self.index is not None:
            if keep:
                self.index.release(self.node)
            else:
                self.index.forget(self.node)
        self.node, self.cells = None, array("i")
        self.n_past = self.n_shared = 0
