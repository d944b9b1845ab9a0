"""What a sequence may generate next, given its reasoning block and its constraint, as masks for the sampler.

A mask depends only on the tokens so far, so the masks of a step are computed in a separate thread while the
step is computed: neither llguidance nor ggml holds the GIL.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from engine.constraint.compiler import ConstraintCompiler
from engine.constraint.matcher import ConstraintMatcher
from engine.constraint.reasoning import ReasoningBlock, check_reasoning
from engine.constraint.unique_names import TokenMask
from engine.errors import ConfigError
from engine.types import Constraint, Reasoning


class OutputGuide:
    """Follows the output of one sequence. `commit` takes every token but one that ends the output.

    Methods raise ConfigError when nothing can match any more, or when finding out would take too long.
    """

    __slots__ = ("_block", "_matcher")

    def __init__(self, matcher: ConstraintMatcher | None, block: ReasoningBlock | None) -> None:
        self._matcher = matcher
        self._block = block

    def fill(self, mask: TokenMask, not_ending: TokenMask, nothing: TokenMask) -> TokenMask | None:
        """The mask of the next token, written to `mask` if necessary; None if every token is allowed.

        not_ending: a mask of all tokens except end-of-generation ones. nothing: an empty mask.
        """
        block, matcher = self._block, self._matcher
        if block is not None and not block.over:
            only = block.forced if block.inside or matcher is None or not block.started else block.opening
            if only is not None:
                mask[:] = nothing
                _allow(mask, only)
                return mask
            if block.inside:  # the constrained part is still to come
                return None if matcher is None else not_ending
        if matcher is None:
            return None
        matcher.fill(mask)
        if block is not None and (opening := block.opening) is not None:
            _allow(mask, opening)
        return mask

    def commit(self, token: int) -> None:
        """Take the generated token."""
        block, matcher = self._block, self._matcher
        if block is not None and not block.over:
            if matcher is not None and block.ambiguous(token) and matcher.accepts(token):
                block.over = True  # the constrained part begins with what could also have opened the block
            elif not block.commit(token):
                return
        if matcher is not None:
            matcher.commit(token)

    @property
    def may_stop(self) -> bool:
        """Whether the output so far meets the constraint."""
        return self._matcher is not None and not self._inside and self._matcher.may_stop

    @property
    def must_stop(self) -> bool:
        """Whether it does, and nothing can follow."""
        return self._matcher is not None and not self._inside and self._matcher.must_stop

    @property
    def _inside(self) -> bool:
        block = self._block
        return block is not None and (block.inside or (block.started and not block.over))


class OutputGuides:
    """Creates the guides of one scheduler or session, and the masks of its steps. For one thread.

    token_bytes: the bytes that a token contributes to text.
    """

    def __init__(
        self,
        compiler: ConstraintCompiler,
        token_bytes: Callable[[int], bytes],
        n_vocab: int,
        eog_ids: Collection[int],
    ) -> None:
        self._compiler = compiler
        self._token_bytes = token_bytes
        self._n_vocab = n_vocab
        self._eog_ids = eog_ids
        self._buffers: list[TokenMask] = []
        self._not_ending = self._nothing = array("I")
        self._thread: ThreadPoolExecutor | None = None
        self._filling: Future[list[TokenMask | ConfigError | None]] | None = None

    def compile(
        self, constraint: Constraint | None, reasoning: Reasoning | None, generated: Sequence[int] = ()
    ) -> Future[OutputGuide]:
        """A guide that has taken the tokens `generated` so far; ready at once if nothing needs compiling.

        Raises ConfigError for a reasoning block that cannot be followed. The future raises it for a
        constraint that cannot be compiled or that `generated` does not match.
        """
        if reasoning is not None:
            check_reasoning(reasoning, self._n_vocab)
        guide: Future[OutputGuide] = Future()

        def finish(matcher: ConstraintMatcher | None) -> None:
            block = None if reasoning is None else ReasoningBlock(reasoning, self._token_bytes)
            output_guide = OutputGuide(matcher, block)
            for token in generated:
                output_guide.commit(token)
            guide.set_result(output_guide)

        def compiled(matcher: Future[ConstraintMatcher]) -> None:
            try:
                finish(matcher.result())
            except BaseException as error:
                guide.set_exception(error)

        if constraint is None:
            finish(None)
        else:
            self._compiler.submit(constraint).add_done_callback(compiled)
        return guide

    def fill(self, guide: OutputGuide, i: int = 0) -> TokenMask | None:
        """The mask of the next token, in buffer number `i`."""
        self._reserve(i + 1)
        return guide.fill(self._buffers[i], self._not_ending, self._nothing)

    def begin(self, guides: Sequence[OutputGuide | None]) -> None:
        """Start computing the masks of a step. These guides must not be used before `end`."""
        self._filling = None
        if any(guides):
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, "masks")
            self._filling = self._thread.submit(self._fill_all, guides)

    def end(self) -> list[TokenMask | ConfigError | None]:
        """The masks in the order of the guides, with errors in place of failed ones; empty without guides."""
        return [] if self._filling is None else self._filling.result()

    def close(self) -> None:
        """Stop the mask thread."""
        if self._thread is not None:
            self._thread.shutdown(wait=False)
            self._thread = None

    def _fill_all(self, guides: Sequence[OutputGuide | None]) -> list[TokenMask | ConfigError | None]:
        masks: list[TokenMask | ConfigError | None] = []
        for i, guide in enumerate(guides):
            try:
                masks.append(None if guide is None else self.fill(guide, i))
            except ConfigError as error:
                masks.append(error)
        return masks

    def _reserve(self, n: int) -> None:
        """Create `n` buffers."""
        words = self._compiler.n_words
        if not self._buffers:
            self._nothing = array("I", bytes(4 * words))
            self._not_ending = array("I", [0xFFFFFFFF]) * words
            for token in self._eog_ids:
                if token < self._n_vocab:
                    self._not_ending[token // 32] &= ~(1 << token % 32)
        while len(self._buffers) < n:
            self._buffers.append(array("I", bytes(4 * words)))


def _allow(mask: TokenMask, token: int) -> None:
    mask[token // 32] |= 1 << token % 32
