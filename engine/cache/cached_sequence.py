"""One sequence of tokens and the cache cells that hold its keys and values."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from engine.cache.cell_pool import CellPool
from engine.cache.prefix_cache import Node, PrefixCache, Variant
from engine.cache.prefix_miss import Miss
from engine.cache.state_slots import NO_SLOT
from engine.cache.window_rows import HeldRows
from engine.config import n_shifted, shift_size
from engine.types import AdapterScales

# Tokens that a checkpoint at a boundary must save: that of a recurrent state costs a step of its own.
WORTH_KEEPING = 32


class CachedSequence:
    """Tokens, of which the first `n_past` are computed, and the cells that hold those.

    The first `n_shared` cells belong to the prefix cache (`node`, where they end, is locked), the others to
    this sequence alone. miss: why the cache held no more when it started.
    prefix None: the sequence neither uses the prefix cache nor leaves anything in it.
    original_context_length: see `HParams`. uses_long_rope: how the cells were computed.
    adapters: the LoRA adapters that compute it; they can change while nothing is computed.
    salt: it shares prefixes with sequences of the same salt only.
    slot: of the recurrent state after `n_past` tokens, in a model with recurrent layers. rows: those that it
    holds in layers with a window. stops: lengths at which a checkpoint is to be made, besides those that
    `publish` chooses. boundaries: lengths from which other sequences are likely to go on; those that `attach`
    leaves to compute become stops, but for those close to another.
    """

    __slots__ = (
        "_n_checkpoint",
        "adapters",
        "boundaries",
        "cells",
        "miss",
        "n_past",
        "n_shared",
        "node",
        "original_context_length",
        "pool",
        "prefix",
        "rows",
        "salt",
        "slot",
        "stops",
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
        salt: str = "",
    ) -> None:
        self.pool = pool
        self.prefix = prefix
        self.tokens = array("i", tokens)
        self.cells = array("i")
        self.n_past = 0
        self.n_shared = 0
        self.node: Node | None = None
        self.miss = Miss.DISABLED
        self.original_context_length = original_context_length
        self.uses_long_rope = False
        self.adapters, self.salt = adapters, salt
        self.slot = NO_SLOT
        self.rows = HeldRows(pool.windows)
        self.stops: set[int] = set()
        self.boundaries: Sequence[int] = ()
        self._n_checkpoint = 0  # the length at the last checkpoint

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
        return Variant(self.uses_long_rope, self.adapters, self.salt)

    @property
    def next_variant(self) -> Variant:
        """How the tokens that it has now are to be computed."""
        return Variant(self.needs_long_rope, self.adapters, self.salt)

    def refit(self) -> None:
        """Release the cells if they were computed with the wrong rotary factors: all is to be recomputed."""
        if self.n_past and self.uses_long_rope != self.needs_long_rope:
            self.release()

    def shift(self, n_tokens: int, n_ctx: int, n_keep: int, n_discard: int) -> int:
        """Drop tokens so that one more fits behind `n_tokens`, see `engine.config.n_shifted`; how many.

        What is left is to be computed again at its new places, which is right for every architecture.
        """
        self.release()
        self.boundaries = ()
        n = n_shifted(n_tokens, n_keep, n_ctx, n_discard)
        n_keep, _ = shift_size(n_keep, n_ctx, n_discard)
        del self.tokens[n_keep : n_keep + n]
        return n

    def attach(self, limit: int | None = None) -> int:
        """Start with the longest cached prefix of at most `limit` tokens; return its length.

        limit None: all but the last token, whose logits are needed. OutOfMemoryError if there is no slot for
        the recurrent state. Nothing may be computed of the sequence yet.
        """
        self.uses_long_rope = self.needs_long_rope
        self._free_slot()
        if self.prefix is not None:
            limit = len(self.tokens) - 1 if limit is None else limit
            match = self.prefix.acquire(self.tokens, limit, self.variant)
            self.node, self.cells, self.miss = match.node, match.cells, match.miss
            self.n_past = self.n_shared = self._n_checkpoint = match.n
            self.rows.resume(self.cells)
            if self.node is not None and self.pool.windows is not None:
                self.pool.windows.save(self.node, self.rows.held(self.cells))  # others may want it, too
            if match.n < match.n_known:
                self.stops.add(match.n_known)  # where sequences part: the next one can go on from there
        last = self.n_past
        for boundary in sorted(self.boundaries):
            if boundary >= last + WORTH_KEEPING:
                self.stops.add(boundary)
                last = boundary
        if self.pool.states is not None:
            try:
                self.slot = self.pool.states.take(self.node)
            except BaseException:
                self.release()
                raise
        return self.n_past

    def grow(self, n: int, *, restored: bool = False) -> None:
        """Allocate cells for the next `n` tokens, and a slot for the recurrent state if there is none.

        restored: their keys and values are known: only the last ones need rows in layers with a window.
        """
        if self.slot == NO_SLOT and self.pool.states is not None:
            self.slot = self.pool.states.take()
        cells, windows = self.cells, self.pool.windows
        if windows is not None:
            windows.make_room(min(n, windows.reach) if restored else n)
        after = cells[-1] if cells else -1
        if n == 1:
            cells.append(self.pool.alloc_one(after))
        else:
            cells.extend(self.pool.alloc(n, after))
        if restored and windows is not None:
            self.rows.skip(cells, len(cells) - windows.reach)
        self.rows.extend(cells)

    def chunk(self, n: int) -> int:
        """`n` tokens to compute next, or fewer: as there are rows, or where a state is to be kept."""
        states, windows = self.pool.states, self.pool.windows
        if windows is not None:
            n = min(n, max(windows.n_available, 1))
        if self.prefix is None or states is None:
            return n
        due = [*self.stops, self._n_checkpoint + states.interval]  # a state cannot go back to there
        return min([self.n_past + n, *(stop for stop in due if stop > self.n_past)]) - self.n_past

    def trim(self) -> None:
        """Free the cells whose tokens were not computed.

        A computation that failed may have changed the recurrent state: then the sequence gives all back, and
        goes on from the last checkpoint.
        """
        if len(self.cells) > self.n_past:
            if self.slot == NO_SLOT:
                self._free_pending()
            else:
                self.release()

    def publish(self) -> None:
        """Put what is computed into the prefix cache, with a checkpoint if one is due.

        That is at the end of what there is to compute, at a stop, and after each interval of a long prompt.
        """
        n = self.n_past
        self._insert()
        if self.node is None or n <= self._n_checkpoint:
            return
        due = not self.n_pending or n in self.stops
        if not (due or self._interval_is_over):
            return
        if self.pool.states is not None:
            self.pool.states.save(self.node, self.slot, passing=not due)
        if self.pool.windows is not None:
            self.pool.windows.save(self.node, self.rows.held(self.cells[:n]), passing=not due)
        self._n_checkpoint = n

    def reach(self, n: int) -> None:
        """The first `n` tokens are computed, for certain. All up to the last stop before `n` is published."""
        for stop in sorted(stop for stop in self.stops if self.n_past < stop < n):
            self.n_past = stop
            self.publish()
        self.n_past = n
        self.rows.advance(self.cells, n)

    def advance(self, n: int) -> None:
        """The next `n` tokens are computed. Where a checkpoint is due, all of them are published."""
        self.reach(self.n_past + n)
        if self.pool.has_checkpoints and (self.n_past in self.stops or self._interval_is_over):
            self.publish()

    @property
    def _interval_is_over(self) -> bool:
        """Whether the last checkpoint is so far back that one is due on the way."""
        kinds = (self.pool.states, self.pool.windows)
        return any(kind and self.n_past - self._n_checkpoint >= kind.interval for kind in kinds)

    def mark(self) -> None:
        """Publish what is computed, with a checkpoint if the model needs one: others may go on from here."""
        if self.pool.has_checkpoints and self.n_past:
            self.stops.add(self.n_past)
            self.publish()

    def truncate(self, n: int) -> None:
        """Forget all but the first `n` tokens.

        Without a recurrent state or a whole window there it goes back to the last checkpoint.
        """
        if n < self.n_past and (self.slot != NO_SLOT or not self.rows.can_resume(n)):
            self.release()
            del self.tokens[n:]
            self.attach(n)
            return
        self.n_past = min(self.n_past, n)
        self._n_checkpoint = min(self._n_checkpoint, n)
        self.rows.cut(self.cells, self.n_past)
        self.pool.free(self.cells[max(self.n_past, self.n_shared) :])
        del self.cells[self.n_past :], self.tokens[n:]
        if n < self.n_shared and self.prefix is not None and self.node is not None:
            # Lock only the part that is left: later tokens would otherwise be inserted behind the old end.
            match = self.prefix.acquire(self.tokens, None, self.variant)
            self.prefix.release(self.node)
            self.node, self.cells = match.node, match.cells
            self.n_past = self.n_shared = match.n

    def release(self, *, keep: bool = True) -> None:
        """Give all cells back. keep: what is computed stays in the prefix cache, and so does its state."""
        state_is_known = len(self.cells) == self.n_past
        self._free_pending()
        if keep:
            self._insert()
        if keep and self.node is not None:
            if state_is_known and self.slot != NO_SLOT and self.pool.states is not None:
                self.pool.states.keep(self.node, self.slot)
                self.slot = NO_SLOT
            if self.pool.windows is not None and self.rows.can_resume(self.n_past):
                self.pool.windows.save(self.node, self.rows.held(self.cells))
        self._free_slot()
        self.rows.cut(self.cells, 0)
        self.pool.free(self.cells[self.n_shared :])
        if self.node is not None and self.prefix is not None:
            if keep:
                self.prefix.release(self.node)
            else:
                self.prefix.forget(self.node)
        self.node, self.cells = None, array("i")
        self.n_past = self.n_shared = self._n_checkpoint = 0
        self.stops.clear()

    def _insert(self) -> None:
        """Put the cells of what is computed into the prefix cache."""
        if self.prefix is not None and self.n_past > self.n_shared:
            self.node = self.prefix.insert(
                self.tokens, self.cells, self.n_past, self.node, self.n_shared, self.variant
            )
            self.n_shared = self.n_past

    def _free_pending(self) -> None:
        if len(self.cells) > self.n_past:
            self.rows.cut(self.cells, self.n_past)
            self.pool.free(self.cells[self.n_past :])
            del self.cells[self.n_past :]

    def _free_slot(self) -> None:
        if self.slot != NO_SLOT and self.pool.states is not None:
            self.pool.states.free(self.slot)
            self.slot = NO_SLOT
