"""How likely a model finds the tokens of a text: what `echo` with `logprobs` shows of a prompt.

Unlike perplexity it wants the likeliest tokens too, and what it computes goes to the prefix cache, so that
a request for the same prompt finds all of it there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from engine.errors import ConfigError, ContextOverflowError, EngineError, ModelError
from engine.sampling import MAX_LOGPROBS
from engine.session import CachedSequence, Rows, make_room
from engine.types import Token

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from engine.model import Model

LOGITS_BYTES = 64 << 20  # of one batch: most of the memory that scoring takes


def score(model: Model, tokens: Sequence[int], top: int = 0, n_batch: int = 512) -> Iterator[list[Token]]:
    """The tokens from the second on, as they would have been generated; a list for each batch.

    top: of each also the `top` most likely tokens. Natural logs of the softmax [n_vocab]. Raises ConfigError
    for ids outside of the vocabulary, ContextOverflowError for too many of them, ModelError for a model that
    predicts no next token, OutOfMemoryError if the cache has no room.
    """
    if not 0 <= top <= MAX_LOGPROBS:
        raise ConfigError(f"top is {top}; it must lie between 0 and {MAX_LOGPROBS}")
    n_vocab = model.hp.n_vocab
    if not tokens or not 0 <= min(tokens) <= max(tokens) < n_vocab:
        raise ConfigError(f"a text is empty, or has an id outside of the vocabulary of {n_vocab} tokens")
    if len(tokens) > model.n_ctx:
        raise ContextOverflowError(len(tokens), model.n_ctx)
    if not model.hp.causal:
        raise ModelError(f"a {model.gguf.arch} model predicts no next token, so it has no log-probabilities")
    most = max(1, LOGITS_BYTES // (4 * n_vocab))
    n_batch = max(1, min(n_batch, model.max_batch_tokens, most))
    sequence = CachedSequence(model.pool, model.prefix, tokens, n_short=model.hp.n_short)
    sequence.long = sequence.wants_long
    try:
        while sequence.n_pending:
            begin = sequence.n_past
            n = min(n_batch, sequence.n_pending)
            make_room(model.pool, model.prefix, n)
            sequence.grow(n)
            chunk = list(tokens[begin : begin + n])
            model.runner.forward([Rows(chunk, sequence.cells, begin, n, sequence.long)])
            sequence.n_past += n
            following = tokens[begin + 1 : begin + n + 1]
            yield [_token(model.runner.logits(i), id, top) for i, id in enumerate(following)]
    except BaseException:
        sequence.release(keep=False)  # what failed may have left anything in its cells
        raise
    sequence.release()


def _token(logits: object, id: int, top: int) -> Token:
    import numpy as np

    row = np.asarray(logits)
    highest = float(row.max())
    if not math.isfinite(highest):
        raise EngineError("the logits are not finite numbers: the weights or the device are faulty")
    # Sums of many small terms: float32 would lose some of them.
    log_total = highest + math.log(float(np.exp(row - np.float32(highest)).sum(dtype=np.float64)))
    best = [(int(i), float(row[i]) - log_total) for i in _most_likely(row, top)]
    return Token(id, float(row[id]) - log_total, best)


def _most_likely(row: NDArray[np.float32], n: int) -> NDArray[np.intp]:
    """Their ids, the likeliest first; of equal ones the lower id."""
    import numpy as np

    n = min(n, len(row))
    if not n:
        return np.empty(0, np.intp)
    least = np.partition(row, len(row) - n)[len(row) - n]
    ids = np.flatnonzero(row >= least)
    return ids[np.lexsort((ids, -row[ids]))][:n]
