"""What a session may say next, of its reasoning block and its constraint, as masks for the sampler.

A mask follows from the tokens so far alone, so those of a step are made while the step is computed, in a
thread of their own: llguidance does not hold Python's lock, and neither does ggml.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from engine.constraint.reasoning import ReasoningBlock, check
from engine.errors import ConfigError
from engine.types import Constraint, Thinking

if TYPE_CHECKING:
    from engine.scheduler.sequence import Session

COMPILE_S = 20.0  # longer than anything takes that was checked before
_POLL_S = 0.01


class Matcher(Protocol):
    """`engine.constraint.compiler.Matcher`, or what takes its place in tests."""

    def fill(self, address: int, /) -> None: ...
    def commit(self, token: int, /) -> None: ...
    def accepts(self, token: int, /) -> bool: ...
    @property
    def may_stop(self) -> bool: ...
    @property
    def must_stop(self) -> bool: ...


class Compiler(Protocol):
    """`engine.constraint.compiler.Compiler`."""

    @property
    def n_words(self) -> int: ...
    def submit(self, constraint: Constraint, /) -> Future[Any]: ...  # of a Matcher


Mask = memoryview  # uint32 words: bit i % 32 of word i // 32 tells whether token i may come


class Row(NamedTuple):
    """Memory for one mask."""

    mask: Mask
    address: int


class Guide:
    """Follows the answer of one session. `commit` tells it of every token but one that ends the answer.

    Raises ConfigError when nothing can match any more, or to find out would take too long.
    """

    __slots__ = ("_block", "_matcher")

    def __init__(self, matcher: Matcher | None, block: ReasoningBlock | None) -> None:
        self._matcher = matcher
        self._block = block

    def fill(self, row: Row, unended: Mask, nothing: Mask) -> Mask | None:
        """The mask of the next token; None where every token may come.

        unended: the mask of all tokens but those that end a generation. nothing: that of none.
        """
        block, matcher = self._block, self._matcher
        mask = row.mask
        if block is not None and not block.over:
            only = block.forced if block.inside or matcher is None or not block.begun else block.opening
            if only is not None:
                mask[:] = nothing
                _allow(mask, only)
                return mask
            if block.inside:  # what has to match is still to come
                return None if matcher is None else unended
        if matcher is None:
            return None
        matcher.fill(row.address)
        if block is not None and (opening := block.opening) is not None:
            _allow(mask, opening)
        return mask

    def commit(self, token: int) -> None:
        block, matcher = self._block, self._matcher
        if block is not None and not block.over:
            if matcher is not None and block.ambiguous(token) and matcher.accepts(token):
                block.over = True  # the answer begins with what could also have opened the block
            elif not block.commit(token):
                return
        if matcher is not None:
            matcher.commit(token)

    @property
    def may_stop(self) -> bool:
        """Whether the constraint is met by the text so far."""
        return self._matcher is not None and not self._inside and self._matcher.may_stop

    @property
    def must_stop(self) -> bool:
        """Whether it is, and nothing can follow."""
        return self._matcher is not None and not self._inside and self._matcher.must_stop

    @property
    def _inside(self) -> bool:
        block = self._block
        return block is not None and (block.inside or (block.begun and not block.over))


class Guides:
    """Makes the guides of one scheduler's sessions, and the masks of its steps. For one thread.

    token_bytes: what a token contributes to text.
    """

    def __init__(
        self,
        compiler: Compiler,
        token_bytes: Callable[[int], bytes],
        n_vocab: int,
        eog_ids: Collection[int],
    ) -> None:
        self._compiler = compiler
        self._token_bytes = token_bytes
        self._n_vocab = n_vocab
        self._eog_ids = eog_ids
        self._rows: list[Row] = []
        self._unended = self._nothing = memoryview(array("I"))
        self._thread: ThreadPoolExecutor | None = None
        self._filled: Future[list[Mask | ConfigError | None]] | None = None

    def check(self, thinking: Thinking | None) -> None:
        """ConfigError for a reasoning block that could not be followed."""
        if thinking is not None:
            check(thinking, self._n_vocab)

    def make(self, constraint: Constraint | None, thinking: Thinking | None) -> Guide:
        """A guide, compiled meanwhile. Raises ConfigError."""
        self.check(thinking)
        matcher = None if constraint is None else self._compiler.submit(constraint).result()
        return self._guide(matcher, thinking)

    def prepare(self, session: Session) -> None:
        """Start to make the guide of a session. `ready` tells when it is there."""
        constraint = session.request.constraint
        if constraint is not None:
            session.compiling = self._compiler.submit(constraint)

    def ready(self, sessions: Iterable[Session]) -> list[tuple[Session, str | None]]:
        """Those that have their guide now, or the error why they never will.

        A guide has been told of the tokens that were generated before.
        """
        found: list[tuple[Session, str | None]] = []
        for session in sessions:
            future, error = session.compiling, None
            try:
                if future is None:
                    session.guide = self._resumed(session, None)
                elif future.done():
                    session.guide = self._resumed(session, future.result())
                elif monotonic() - session.submitted_at < COMPILE_S:
                    continue
                else:
                    error = f"the constraint on the output takes longer than {COMPILE_S:g} s to compile"
            except Exception as failure:
                error = str(failure) or repr(failure)
            session.compiling = None
            found.append((session, error))
        return found

    def wait(self, sessions: Iterable[Session]) -> None:
        """Give way to the compiler for a moment."""
        futures = [session.compiling for session in sessions if session.compiling is not None]
        wait(futures, _POLL_S, FIRST_COMPLETED)

    def _resumed(self, session: Session, matcher: Matcher | None) -> Guide:
        guide = self._guide(matcher, session.request.thinking)
        for token in session.request.generated:
            guide.commit(token)
        return guide

    def _guide(self, matcher: Matcher | None, thinking: Thinking | None) -> Guide:
        return Guide(matcher, None if thinking is None else ReasoningBlock(thinking, self._token_bytes))

    def fill(self, guide: Guide, i: int = 0) -> Mask | None:
        """The mask of the next token, in row `i` of the memory for masks."""
        self._grow(i + 1)
        return guide.fill(self._rows[i], self._unended, self._nothing)

    def begin(self, guides: Sequence[Guide | None]) -> None:
        """Start to make the masks of a step. Nothing may be told to these guides before `end`."""
        self._filled = None
        if any(guides):
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, "masks")
            self._filled = self._thread.submit(self._fill_all, guides)

    def end(self) -> list[Mask | ConfigError | None]:
        """The masks, in the order of the guides, or why there is none; nothing if there are no guides."""
        return [] if self._filled is None else self._filled.result()

    def close(self) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=False)
            self._thread = None

    def _fill_all(self, guides: Sequence[Guide | None]) -> list[Mask | ConfigError | None]:
        found: list[Mask | ConfigError | None] = []
        for i, guide in enumerate(guides):
            try:
                found.append(None if guide is None else self.fill(guide, i))
            except ConfigError as error:
                found.append(error)
        return found

    def _grow(self, n: int) -> None:
        """See that there are `n` rows. Rows stay where they are: llguidance is given their addresses."""
        if len(self._rows) >= n:
            return
        words = self._compiler.n_words
        if not self._rows:
            self._nothing = memoryview(array("I", bytes(4 * words)))
            self._unended = memoryview(array("I", [0xFFFFFFFF]) * words)
            for token in self._eog_ids:
                if token < self._n_vocab:
                    self._unended[token // 32] &= ~(1 << token % 32)
        while len(self._rows) < n:
            row = array("I", bytes(4 * words))
            self._rows.append(Row(memoryview(row), row.buffer_info()[0]))


def _allow(mask: Mask, token: int) -> None:
    mask[token // 32] |= 1 << token % 32
