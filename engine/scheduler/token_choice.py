"""The tokens that a step produces: sampled from its logits, as far as drafted ones turn out to be right."""

from __future__ import annotations

from typing import NamedTuple

from engine.constraint.guide import OutputGuides
from engine.constraint.unique_names import TokenMask
from engine.errors import ConfigError
from engine.scheduler.batch import Batch, BatchItem, BatchRunner
from engine.scheduler.sequence import SamplerFactory, ScheduledSequence
from engine.types import FinishReason, Token


class Choice(NamedTuple):
    """The next tokens of a sequence, and whether it ends with them, with a reason or an error.

    n_right: drafted tokens among the sequence's tokens, which are already computed.
    """

    tokens: list[Token]
    n_right: int = 0
    finish: FinishReason | None = None
    error: Exception | None = None


class TokenChooser:
    """Computes batches and, at the same time, the masks of their constrained sequences; then chooses tokens.

    A token depends only on its logits, the tokens before it, its index and the seed. So the logits after a
    drafted token give the same result as without drafting, as long as the tokens before them are the same:
    verification needs no probabilities of the draft.
    """

    def __init__(
        self,
        runner: BatchRunner,
        sampler_factory: SamplerFactory,
        guides: OutputGuides | None,
        eog_ids: frozenset[int],
    ) -> None:
        self._runner, self._sampler_factory, self._guides = runner, sampler_factory, guides
        self._eog_ids = eog_ids
        self._masks: list[TokenMask | ConfigError | None] = []  # one for each sequence with logits, or empty

    def forward(self, batch: Batch) -> int:
        """Compute a batch and return its number of rows of logits."""
        guides = self._guides
        if guides is None:
            return self._runner.forward(batch.items)
        guides.begin([sequence.guide for sequence in batch.needing_logits()])
        try:
            return self._runner.forward(batch.items)
        finally:
            self._masks = guides.end()

    def choose(self, sequence: ScheduledSequence, item: BatchItem, place: int, row: int) -> Choice:
        """The next tokens of a sequence, in the order of rows; at least one, unless sampling fails.

        place: its index among the sequences with logits. row: of its first logits. The tokens are added to
        it.
        """
        draft, n_right = item.draft, 0
        tokens: list[Token] = []
        for i in range(item.logits):
            try:
                token = self._sample(sequence, row + i, self._mask(sequence, place, i))
            except Exception as error:
                return Choice(tokens, n_right, error=error)
            sequence.tokens.append(token.id)
            is_right = i < len(draft) and token.id == draft[i]
            n_right += is_right
            reason = sequence.finish_reason
            if sequence.guide is not None and reason is not FinishReason.STOP:
                try:
                    sequence.guide.commit(token.id)
                except ConfigError as error:
                    return Choice(tokens, n_right, error=error)
                if sequence.guide.must_stop:
                    reason = FinishReason.STOP
            tokens.append(token)
            if reason is not None or not is_right:
                return Choice(tokens, n_right, reason)
        return Choice(tokens, n_right)

    def _mask(self, sequence: ScheduledSequence, place: int, i: int) -> TokenMask | None:
        """Of the token `i` of a step; the first one was made while the step was computed."""
        if sequence.guide is None:
            return None
        assert self._guides is not None
        if i:
            return self._guides.fill(sequence.guide, place)
        mask = self._masks[place]
        if isinstance(mask, ConfigError):
            raise mask
        return mask

    def _sample(self, sequence: ScheduledSequence, row: int, mask: TokenMask | None) -> Token:
        logits = self._runner.logits(row)
        sampler = sequence.sampler or sequence.make_sampler(
            self._sampler_factory, self._runner.n_vocab, self._eog_ids
        )
        return sampler.sample(logits, mask)
